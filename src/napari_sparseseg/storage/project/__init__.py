"""Projects on disk: images, paint, models and predictions in a folder that survives whatever happens.

The folder NAME.sparseseg is a group of zarr (format 3):

    project.json            the commit point: classes, settings, images, which folds and checkpoints count
    project.previous.json   the one before
    lock, writer.json       who is writing
    images/0/journal/       every change of annotation and objects, one file for each time the image was opened
    images/0/annotation/    folds: the annotation as of a position in the journal, the last two
    images/0/objects/       the objects that were found, as of these folds
    images/0/prediction/    the labels that were shown last, an OME-Zarr label image
    images/0/whole/         all of the image as predicted on wish: what is complete, and what is under way
    images/0/pixels/        the image itself, if it is stored in the project
    checkpoints/            models with their training state, the last two good ones

What a user did is in the journal, which is never shortened, and so is what was found by a search for objects: folds,
predictions and checkpoints only save time. So all of them may be lost or damaged, and are then made again from what is
older.
"""
