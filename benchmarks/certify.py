"""What the certificate of a fold costs: seconds, and nanoseconds a weight, for every registered network.

    python -m benchmarks.certify [ARCH…]

Exported with random weights and statistics and folded, then certified in this process; prints a Markdown table.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from exporters import export
from exporters.certify import certify
from exporters.fold_batchnorm import fold_batchnorm
from pipeline.models.specs import ARCHITECTURES


def main() -> None:
    import torch

    from pipeline.models.resnet import ResNet

    print("| network | weights, millions | pairs folded | largest error, of its bound | seconds | ns a weight |")
    print("|---|---|---|---|---|---|")
    for arch in sys.argv[1:] or ARCHITECTURES:
        network = ResNet(ARCHITECTURES[arch], 1000, 3, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        for name, value in network.state_dict().items():
            if "bn" in name or "downsample.1" in name:  # equal tensors would be exported once, and stand in the way
                value.copy_(torch.rand_like(value.float()) + 0.5)
        weights = sum(value.numel() for value in network.parameters())
        with tempfile.TemporaryDirectory() as folder:
            before, after = (Path(folder, f"{name}.onnx") for name in ("before", "after"))
            export.export(network, before, (3, 64, 64), {})
            fold_batchnorm(before, after)
            started = time.perf_counter()
            found = certify(before, after)
            seconds = time.perf_counter() - started
        assert found.proven, found.refuted[:3]
        figures = f"{weights / 1e6:.1f} | {found.folded} | {found.largest:.4f} | {seconds:.1f}"
        print(f"| {arch} | {figures} | {1e9 * seconds / weights:.0f} |", flush=True)


if __name__ == "__main__":
    main()
