"""How far the rooflines of docs/hardware.md are from what is measured: `python -m` this.

On this processor: the demo network as float32 and in int8 at none, half and all of its sites,
timed in turn in one process with pinned threads, beside the estimates for `cpu-avx512-vnni` (or
another profile) and for rates measured here. With `--cuda`, which needs PyTorch and a card and
nothing else: what matrix products, copies and launches reach of a profile.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from justenough.cost.hardware import Hardware, Rate, profile
from justenough.cost.roofline import Layer, estimate, speedup

SIDE = 1024
CHAIN = 200
COPIED = 2**28


def in_turn(calls: Mapping[str, Callable[[], object]], passes: int) -> dict[str, list[float]]:
    """Seconds of each call, all of them in turn `passes` times after one to warm up."""
    for call in calls.values():
        call()
    out: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(passes):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            out[name].append(time.perf_counter() - begin)
    return out


def graph_call(
    nodes: Sequence[Any], feed: Mapping[str, Any], out: str, folder: Path
) -> Callable[[], object]:
    """One call of a graph of `nodes` in ONNX Runtime, one thread, no fusions across nodes."""
    import onnx
    from onnx import helper

    faces = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for k, v in feed.items()
    ]
    last = helper.make_empty_tensor_value_info(out)
    made = helper.make_graph(list(nodes), "g", faces, [last])
    opset = [helper.make_opsetid("", 17)]
    path = folder / f"{out}.onnx"
    onnx.save(onnx.shape_inference.infer_shapes(
        helper.make_model(made, opset_imports=opset, ir_version=8)), str(path))  # fmt: skip
    run = open_file(path)
    return lambda: run.run(None, dict(feed))


def open_file(path: Path) -> Any:
    """A session of one pinned thread that does not spin."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def this_core(folder: Path, passes: int) -> Hardware:
    """What one core reaches here in large products, copies and chains of small nodes."""
    from onnx import helper

    rng = np.random.default_rng(0)
    x = rng.normal(size=(SIDE, SIDE)).astype(np.float32)
    u, w = (rng.integers(0, 100, (SIDE, SIDE)).astype(t) for t in (np.uint8, np.int8))
    one = np.ones(1, np.float32)
    adds = [
        helper.make_node("Add", [f"c{k}" if k else "one", "other"], [f"c{k + 1}"])
        for k in range(CHAIN)
    ]
    product, integer = (
        helper.make_node(op, ["a", "b"], [op]) for op in ("MatMul", "MatMulInteger")
    )
    source, target = np.ones(COPIED, np.uint8), np.zeros(COPIED, np.uint8)
    taken = in_turn(
        {
            "fp32": graph_call([product], {"a": x, "b": x}, "MatMul", folder),
            "int8": graph_call([integer], {"a": u, "b": w}, "MatMulInteger", folder),
            "chain": graph_call(adds, {"one": one, "other": one}, f"c{CHAIN}", folder),
            "copy": lambda: np.copyto(target, source),
        },
        passes,
    )
    best = {name: min(seconds) for name, seconds in taken.items()}
    rates = {name: Rate(1, SIDE**3 / best[name], 1.0) for name in ("fp32", "int8")}
    return Hardware(
        "one core here", "measured", rates, 2 * COPIED / best["copy"], 2.0**33,
        best["chain"] / CHAIN, {}, {},
    )  # fmt: skip


def demo(folder: Path) -> tuple[list[Layer], dict[str, dict[str, str]], dict[str, Path], Any]:
    """Layers of the demo network, picks and file of each variant, and 64 rows of noise."""
    from justenough.core.subject import Variant
    from justenough.studies.nodules.study import MODEL
    from justenough.subjects.measure import calibrate, layers_of
    from justenough.subjects.onnx_model import find_sites, load_proto
    from justenough.subjects.prepare import prepare
    from justenough.subjects.quantize import int8_nodes, write_variant

    model = prepare(load_proto(MODEL))
    sites = find_sites(model)
    face = model.graph.input[0]
    shape = [d.dim_value for d in face.type.tensor_type.shape.dim][1:]
    rows = {face.name: np.random.default_rng(0).integers(0, 256, (64, *shape), np.uint8)}
    ranges = calibrate(model, sites, rows, batch=32, threads=1).ranges
    names = [s.name for s in sites]
    half = len(names) // 2
    layers = layers_of(model, sites)
    picked = {
        "int8, first half": names[:half], "int8, second half": names[half:], "int8, all": names,
    }  # fmt: skip
    picks: dict[str, dict[str, str]] = {"fp32": {}}
    files = {"fp32": MODEL}
    for title, chosen in picked.items():
        variant = Variant.of(dict.fromkeys(chosen, "int8"))
        files[title] = folder / f"{len(files)}.onnx"
        write_variant(model, sites, variant, ranges, files[title])
        int8 = int8_nodes(model, sites, variant)
        picks[title] = {la.name: "int8" for la in layers if la.name in int8}
    return layers, picks, files, rows


def compare(target: str, passes: int) -> None:
    """Print estimated and measured speed-ups of the demo's variants on one core."""
    from justenough.deploy.environment import runtime

    here = runtime(threads=1, batch=32)
    print(f"{here['processor']}, {here['name']} {here['version']}")
    with TemporaryDirectory() as name:
        folder = Path(name)
        core = this_core(folder, passes)
        layers, picks, files, rows = demo(folder)
        for batch in (1, 32):
            feed = {k: v[:batch] for k, v in rows.items()}
            live = {title: open_file(path) for title, path in files.items()}
            calls = {t: (lambda s=s, f=feed: s.run(None, dict(f))) for t, s in live.items()}
            taken = in_turn(calls, passes)
            print(f"\nbatch {batch}, 1 thread, {passes} passes in turn\n")
            print("| variant | measured | 10 % to 90 % | ms a call | estimated, "
                  f"{target} | ms | estimated, rates measured here | ms |")  # fmt: skip
            print("|---|---|---|---|---|---|---|---|")
            machines = (profile(target).limited_to(1), core)
            exact = [estimate(layers, {}, h, batch=batch) for h in machines]
            reference = np.array(taken["fp32"])
            for title, seconds in taken.items():
                times = np.array(seconds)
                low, high = np.quantile(reference / times, [0.1, 0.9])
                cells = [
                    title, f"{np.median(reference) / np.median(times):.2f}x",
                    f"{low:.2f} to {high:.2f}", f"{1e3 * np.median(times):.3f}",
                ]  # fmt: skip
                for h, e in zip(machines, exact, strict=True):
                    low_time = estimate(layers, picks[title], h, batch=batch)
                    cells += [f"{speedup(e, low_time):.2f}x", f"{1e3 * low_time.seconds:.3f}"]
                print(f"| {' | '.join(cells)} |")
            for e in exact:
                print("\n" + str(e), dict(e.seconds_by_bound))
        print(
            f"\none core here: fp32 {core.rate('fp32') / 1e9:.1f} and int8 "
            f"{core.rate('int8') / 1e9:.1f} G multiply-adds/s "
            f"({core.rate('int8') / core.rate('fp32'):.2f}x), "
            f"copy {core.bandwidth_bytes_s / 1e9:.1f} GB/s (read and written), "
            f"{1e6 * core.launch_s:.2f} us a small node"
        )


def cuda(target: str, passes: int) -> None:
    """Print what products, copies and launches reach of a profile on the card that is here."""
    import torch

    side, hardware = 8192, profile(target)

    def timed(call: Callable[[], object], repeats: int = 1) -> float:
        def synchronized() -> None:
            for _ in range(repeats):
                call()
            torch.cuda.synchronize()

        return float(np.median(in_turn({"call": synchronized}, passes)["call"])) / repeats

    a, b = (torch.randn(side, side, device="cuda") for _ in "ab")
    i = torch.randint(-127, 128, (side, side), device="cuda", dtype=torch.int8)
    column_major = i.t().contiguous().t()
    products: dict[str, Callable[[], object]] = {"fp32": lambda: a @ b, "tf32": lambda: a @ b}
    for kind, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        x, y = a.to(dtype), b.to(dtype)
        products[kind] = lambda x=x, y=y: x @ y  # type: ignore[misc]
    products["int8"] = lambda: torch._int_mm(i, column_major)
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, {side}^3 products\n")
    for kind, call in products.items():
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        reached = side**3 / timed(call, 5)
        share = reached / hardware.rate(kind) if kind in hardware.peak else np.nan
        print(f"| {kind} | {2 * reached / 1e12:.0f} | {100 * share:.0f} % of {target} |")
    source = torch.empty(2**30, device="cuda")
    target_array = torch.empty_like(source)
    moved = 2 * 4 * 2**30 / timed(lambda: target_array.copy_(source), 5)
    print(f"| copy, GB/s | {moved / 1e9:.0f} | {100 * moved / hardware.bandwidth_bytes_s:.0f} % |")
    one = torch.zeros(1, device="cuda")
    print(f"| launch, us | {1e6 * timed(lambda: one.add_(1), 2000):.1f} | one at a time |")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(CHAIN):
            one.add_(1)
    print(f"| launch, us | {1e6 * timed(graph.replay, 20) / CHAIN:.1f} | in a CUDA graph |")


def main() -> None:
    """Compare on this processor, or with --cuda on this card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", help="profile to compare with")
    parser.add_argument("--cuda", action="store_true", help="measure the card instead")
    parser.add_argument("--passes", type=int, default=41)
    asked = parser.parse_args()
    if asked.cuda:
        cuda(asked.target or "h100", asked.passes)
    else:
        compare(asked.target or "cpu-avx512-vnni", asked.passes)


if __name__ == "__main__":
    main()
