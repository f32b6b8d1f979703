"""What a GPU gains: every device does the same work and is compared with the CPU; one JSON object at the end.

    python benchmarks/devices.py [--edge 128] [--steps 100]

The time of a prediction is the best of several repeats after a first one. The first answer is that of the pixel head,
for an image that was never seen before.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from napari_sparseseg import SparseSegmenter
from napari_sparseseg.engine.device import report_devices
from throughput import interleaved, make_case


def main() -> None:
    """Measure every device, and print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edge", type=int, default=128, help="edge of the volume in voxels")
    parser.add_argument("--steps", type=int, default=100, help="steps of the U-Net that are timed")
    parser.add_argument("--repeats", type=int, default=3, help="predictions that are timed")
    parser.add_argument("--devices", nargs="+", help="all that torch sees, and the CPU, unless given")
    arguments = parser.parse_args()

    report = report_devices()
    for name, description in report.devices:
        print(f"{name}: {description}, torch {report.torch_version}, {report.build}")
    image, annotation = make_case(arguments.edge)
    figures, answers = {}, {}
    for device in arguments.devices or [name for name, _ in report.devices]:
        figures[device], answers[device] = measure(device, image, annotation, arguments.steps, arguments.repeats)
        print(device, json.dumps({name: round(value, 3) for name, value in figures[device].items()}), flush=True)
    if "cpu" in answers:
        for device in figures:
            figures[device]["agreement_with_cpu"] = float((answers[device] == answers["cpu"]).mean())
    print(json.dumps({d: {name: round(value, 4) for name, value in f.items()} for d, f in figures.items()}))


def measure(
    device: str, image: np.ndarray, annotation: np.ndarray, n_steps: int, n_repeats: int
) -> tuple[dict[str, float], np.ndarray]:
    """Seconds and rates of one device, and the labels that it predicts.

    All that is timed ends with numbers that the CPU has, so the device is done by then.
    """
    (first,) = interleaved(1, lambda: answer_of(device, image, annotation))
    segmenter = SparseSegmenter(device=device, random_state=0, progress=False).fit(image, annotation, max_steps=30)
    segmenter._fitted.network.context = 0.5  # both heads answer, whatever held-out paint says
    trainer = segmenter._trainer

    def train() -> None:
        for _ in range(n_steps):
            trainer._unet_step(1e-3)

    train()
    (steps,) = interleaved(1, train)
    labels = segmenter.predict(image)
    (predict,) = interleaved(n_repeats, lambda: segmenter.predict(image))
    figures = {
        "first_answer_s": first,
        "step_ms": 1000 * steps / n_steps,
        "predict_s": predict,
        "predict_mvox_s": image.size / 1e6 / predict,
    }
    if device.startswith("cuda"):
        figures["peak_gpu_mb"] = torch.cuda.max_memory_allocated(device) / (1 << 20)
    return figures, labels


def answer_of(device: str, image: np.ndarray, annotation: np.ndarray) -> np.ndarray:
    """Labels by the pixel head alone."""
    segmenter = SparseSegmenter(device=device, random_state=0, progress=False)
    return segmenter.fit(image, annotation, max_steps=0).predict(image)


if __name__ == "__main__":
    main()
