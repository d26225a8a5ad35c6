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
            before = Path(folder, "before.onnx")
            after = Path(folder, "after.onnx")
            export.export(network, before, (3, 64, 64), {})
            fold_batchnorm(before, after)
            started = time.perf_counter()
            certificate = certify(before, after)
            seconds = time.perf_counter() - started

        assert certificate.proven, certificate.refuted[:3]
        ns_a_weight = 1e9 * seconds / weights
        print(
            f"| {arch} | {weights / 1e6:.1f} | {certificate.folded} | {certificate.largest:.4f} | "
            f"{seconds:.1f} | {ns_a_weight:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
