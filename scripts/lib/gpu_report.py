"""Data, torch's figures and the table of scripts/gpu-report.

usage: gpu_report.py data DIR ROWS | torch DIR | table DIR
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

BATCHES = [1, 4, 10, 100, 1000]


def data(folder: Path, rows: int) -> None:
    """Clustered rows [rows, 128] in f16, and 1,000 queries [1000, 128] in f32 from the same clusters."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((2000, 128), dtype=np.float32)

    def draw(n: int) -> np.ndarray:
        return centres[random.integers(0, len(centres), n)] + 0.6 * random.standard_normal((n, 128), dtype=np.float32)

    base = np.empty((rows, 128), np.float16)
    for start in range(0, rows, 100_000):
        base[start : start + 100_000] = draw(min(100_000, rows - start))
    np.save(folder / "base.npy", base)
    np.save(folder / "queries.npy", draw(1000))


def torch_figures(folder: Path) -> None:
    """Seconds of matmul and topk on the same arrays: all products of a batch at once, in f32, tf32 and f16."""
    import torch

    base = torch.from_numpy(np.load(folder / "base.npy").astype(np.float32)).cuda()
    queries = torch.from_numpy(np.load(folder / "queries.npy")).cuda()
    found = []
    for mode in ["f32", "tf32", "f16"]:
        torch.backends.cuda.matmul.allow_tf32 = mode == "tf32"
        rows, asked = (base.half(), queries.half()) if mode == "f16" else (base, queries)
        squares = (rows.float() ** 2).sum(1).to(rows.dtype)
        for batch in BATCHES:

            def search() -> None:
                keys = torch.addmm(squares[None, :], asked[:batch], rows.T, alpha=-2)
                torch.topk(keys, 10, largest=False, dim=1)[1].cpu()

            search()
            times = []
            for _ in range(7):
                torch.cuda.synchronize()
                began = time.perf_counter()
                search()
                times.append(time.perf_counter() - began)
            found.append({"mode": mode, "batch": batch, "ms": float(np.median(times)) * 1e3})
    (folder / "torch.json").write_text(json.dumps(found, indent=1))


def table(folder: Path) -> None:
    """Milliseconds of a batch: ours by every screen, torch's beside them."""
    columns: dict[str, dict[int, float]] = {}
    for path in sorted(folder.glob("search-*.json")):
        rows = json.loads(path.read_text())["results"]
        columns[path.stem.removeprefix("search-")] = {row["batch"]: row["p50_ms"] for row in rows}
    torch_file = folder / "torch.json"
    for row in json.loads(torch_file.read_text()) if torch_file.exists() else []:
        columns.setdefault(f"torch {row['mode']}", {})[row["batch"]] = row["ms"]
    print("\nmilliseconds per batch, median; l2, k = 10, rows of 128 f16 components")
    print("batch " + "".join(f"{name:>12}" for name in columns))
    for batch in BATCHES:
        print(f"{batch:5} " + "".join(f"{columns[name].get(batch, float('nan')):12.3f}" for name in columns))


if __name__ == "__main__":
    verb, folder = sys.argv[1], Path(sys.argv[2])
    if verb == "data":
        data(folder, int(sys.argv[3]))
    elif verb == "torch":
        torch_figures(folder)
    elif verb == "table":
        table(folder)
    else:
        sys.exit(__doc__)
