"""How far a training step is from what the machine can do, part by part.

python benchmarks/limit.py

The machine's limits are measured: multiply-adds/s of a large matrix product in bf16 and float32, bytes/s
of a large copy. A part's multiply-adds are those of its convolutions as written (three times the forward
pass: output, input gradient, weight gradient); its bytes are every layer's input and output in bf16, read
or written once forward and twice backward. The longer of the two times is the limit, to which the part's
measured time is compared. A part that is rewritten (isic_smp/training/cpu_rewrites.py) needs fewer
multiply-adds than it is charged with, so its share can exceed 1.
"""

from typing import Any

from common import isolated, median_seconds, report, takes_no_options

BATCH, SIZE = 32, 128


def main() -> None:
    """Measure, print, and write results/limit.json."""
    takes_no_options(__doc__)
    found = isolated(measure)
    report("limit", {"Machine": [found["machine"]], "Parts of a training step": found["rows"]})


def measure() -> dict:
    """The machine, then each part forward and backward."""
    import torch

    from isic_smp.network import build_network
    from isic_smp.training.cpu_rewrites import rewritten
    from isic_smp.training.recipe import load_recipe

    machine = limits()
    model = build_network(load_recipe("default"), "none").to(memory_format=torch.channels_last).train()
    x = torch.randn(BATCH, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = model.encoder(x)
    parts: list[tuple[str, Any, tuple]] = [("encoder", model.encoder, (x,))]
    parts.append(("context", model.decoder.context, (features[-1],)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        coarse = model.decoder.context(features[-1])
    for i, step in enumerate(model.decoder.steps):
        skip = features[-2 - i] if i + 2 < len(features) else None
        given = (coarse,) if skip is None else (coarse, skip)
        parts.append((f"decoder step {i + 1}, to {SIZE >> (len(features) - 2 - i)} px", step, given))
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            coarse = step(*given)
    parts.append(("head", model.segmentation_head, (coarse,)))
    rows = []
    for name, module, given in parts:
        macs, moved = count(module, given)
        seconds = {}
        for way in ("rewritten", "plain"):
            if way == "rewritten":
                with rewritten(torch.nn.ModuleList([module])):
                    seconds[way] = timed(module, given)
            else:
                seconds[way] = timed(module, given)
        least = max(macs / machine["bf16 GMAC/s"] / 1e9, moved / machine["copy GB/s"] / 1e9)
        by = "arithmetic" if macs / machine["bf16 GMAC/s"] > moved / machine["copy GB/s"] else "memory"
        rows.append(
            {
                "part": name,
                "GMAC": macs / 1e9,
                "MB moved": moved / 1e6,
                "limit ms": 1000 * least,
                "limited by": by,
                "plain ms": 1000 * seconds["plain"],
                "rewritten ms": 1000 * seconds["rewritten"],
                "limit / rewritten": least / seconds["rewritten"],
            }
        )
    sums = {
        key: sum(r[key] for r in rows) for key in ("GMAC", "MB moved", "limit ms", "plain ms", "rewritten ms")
    }
    rows.append(
        {
            "part": "all",
            **sums,
            "limited by": "",
            "limit / rewritten": sums["limit ms"] / sums["rewritten ms"],
        }
    )
    return {"machine": machine, "rows": rows}


def limits() -> dict[str, float]:
    """Measured throughput of this machine with torch's threads."""
    import torch

    found: dict[str, float] = {}
    n = 2048
    for name, dtype in (("bf16", torch.bfloat16), ("float32", torch.float32)):
        a, b = torch.randn(n, n).to(dtype), torch.randn(n, n).to(dtype)
        found[f"{name} GMAC/s"] = n**3 / median_seconds(lambda a=a, b=b: a @ b, seconds=2) / 1e9
    source = torch.zeros(256 * 2**20, dtype=torch.uint8)
    target = torch.ones_like(source)
    found["copy GB/s"] = 2 * source.numel() / median_seconds(lambda: target.copy_(source), seconds=1) / 1e9
    return found


def count(module: Any, given: tuple) -> tuple[int, int]:
    """Multiply-adds and bytes of a forward and backward pass."""
    import torch
    from torch import nn

    macs = moved = 0

    def note(layer: Any, inputs: tuple, output: Any) -> None:
        nonlocal macs, moved
        if isinstance(layer, nn.Conv2d):
            macs += 3 * output.numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.ConvTranspose2d):
            macs += 3 * inputs[0].numel() * layer.weight[0].numel()
        moved += 3 * 2 * (inputs[0].numel() + output.numel())

    leaves = [layer for layer in module.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(note) for layer in leaves if not isinstance(layer, nn.Identity)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        module(*given)
    for hook in hooks:
        hook.remove()
    return macs, moved


def timed(module: Any, given: tuple) -> float:
    """Seconds of a forward and backward pass, gradients in the inputs included except for the image."""
    import torch

    leaves = [g.detach().requires_grad_(g.shape[1] > 3) for g in given]
    with torch.autocast("cpu", torch.bfloat16):
        output = module(*leaves)
    last = output[-1] if isinstance(output, list) else output
    gradient = torch.ones_like(last)

    def once() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            made = module(*leaves)
        made = made[-1] if isinstance(made, list) else made
        made.backward(gradient)

    return median_seconds(once, seconds=2, least=3)


if __name__ == "__main__":
    main()
