"""Objects: what separates those that touch, and how voxels are grouped into them."""
