"""Learn from a painted volume, segment all of it, and write the labels, the model and a picture.

    python examples/train_and_predict.py
    python examples/train_and_predict.py --image cells.tif --annotation painted.tif --seconds 60

Without an image it takes the generated tissue, of which three slices are painted. Image and annotation of your own may
be of any format that the package reads; the annotation is as large as the image, 0 where nothing was painted, and the
number of a class elsewhere.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.figure import COLOURS
from napari_sparseseg.samples import paint_slices, tissue
from napari_sparseseg.storage.formats import open_annotation, open_image, write_labels


def main() -> None:
    """Read, learn, predict, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image", type=Path, help="the volume; the generated tissue without")
    parser.add_argument("--annotation", type=Path, help="what was painted in it")
    parser.add_argument("--seconds", type=float, default=30, help="how long to learn")
    parser.add_argument("--output", type=Path, default=Path("example-output"), help="folder for the results")
    options = parser.parse_args()
    if (options.image is None) != (options.annotation is None):
        parser.error("--image and --annotation belong together")
    options.output.mkdir(parents=True, exist_ok=True)

    if options.image:
        file = open_image(options.image)
        image, spacing, unit, channel_axis = file.array, file.spacing, file.unit, file.channel_axis
        annotation = np.asarray(open_annotation(options.annotation).array)
    else:
        sample = tissue()
        image, spacing, unit, channel_axis = sample.image, sample.spacing, "micrometer", None
        annotation = paint_slices(sample.truth, n_slices=3)

    segmenter = SparseSegmenter(spacing=spacing, channel_axis=channel_axis, random_state=0)
    segmenter.fit(image, annotation, max_seconds=options.seconds)
    labels = segmenter.predict(image)

    write_labels(options.output / "labels.tif", labels, spacing=spacing, unit=unit, overwrite=True)
    segmenter.save(options.output / "model.safetensors")
    shown = np.asarray(image) if channel_axis is None else np.take(image, 0, axis=channel_axis)
    draw(options.output / "slices.png", shown, annotation, labels)
    print(segmenter)


def draw(path: Path, image: np.ndarray, annotation: np.ndarray, labels: np.ndarray) -> None:
    """Show image, paint and labels in the slice with the most paint, and halfway between it and the far end."""
    painted = int((annotation != 0).sum(axis=(1, 2)).argmax())
    far_end = len(image) - 1 if painted < len(image) / 2 else 0
    colours = ListedColormap(COLOURS)
    class_ids = np.unique(labels)

    figure = Figure(figsize=(9, 6), dpi=150, layout="constrained")
    for z, row in zip((painted, (painted + far_end) // 2), figure.subplots(2, 3), strict=True):
        row[0].set_ylabel(f"slice {z}")
        for axes, classes, title in zip(row, (None, annotation, labels), ("image", "paint", "labels"), strict=True):
            axes.imshow(image[z], cmap="gray", vmax=np.percentile(image, 99.7))
            if classes is not None:
                index = np.searchsorted(class_ids, classes[z]) % len(COLOURS)
                overlay = np.ma.masked_where(classes[z] == 0, index)
                axes.imshow(overlay, cmap=colours, vmin=0, vmax=len(COLOURS) - 1, alpha=0.7, interpolation="nearest")
            axes.set(title=title, xticks=[], yticks=[])
    figure.savefig(path)


if __name__ == "__main__":
    main()
