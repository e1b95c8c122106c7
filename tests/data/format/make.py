"""Makes the files beside it: python3 make.py, with numpy. Every matrix is [3, 4] with 10 row + column."""
import os
import numpy as np

os.chdir(os.path.dirname(os.path.abspath(__file__)))
m = np.arange(3)[:, None] * 10 + np.arange(4)[None, :]

for d in ["f2", "f4", "f8", "i1", "u1", "i4", "i8", "u4", "u8"]:
    np.save(f"{d}.npy", m.astype(d))
for d in ["f2", "f4", "f8", "i4", "i8"]:
    np.save(f"{d}_big.npy", m.astype(">" + d))
for d in ["f2", "f4", "f8", "u1", "i8"]:
    np.save(f"{d}_fortran.npy", np.asfortranarray(m.astype(d)))
np.save("f4_big_fortran.npy", np.asfortranarray(m.astype(">f4")))
for version in [(2, 0), (3, 0)]:
    with open(f"f4_v{version[0]}.npy", "wb") as f:
        np.lib.format.write_array(f, m.astype("f4"), version=version)

np.save("f4_1d.npy", np.arange(4, dtype="f4"))
np.save("f4_0d.npy", np.float32(1))
np.save("f4_3d.npy", np.zeros((1, 2, 3), "f4"))
np.save("f4_no_rows.npy", np.zeros((0, 4), "f4"))
np.save("f4_no_dim.npy", np.zeros((3, 0), "f4"))
np.save("i8_no_ids.npy", np.zeros(0, "i8"))
np.save("i8_1d.npy", np.array([-1, 2, 2**40]))
np.save("u8_too_big.npy", np.array([[1, 2], [3, 2**63]], "u8"))
big = m.astype("f8")
big[2, 1] = -1e39
np.save("f8_too_big.npy", big)
np.save("f8_not_finite.npy", np.array([[np.nan, np.inf, -np.inf, 1e-320]]))
np.save("c8.npy", np.zeros(2, "c8"))
np.save("structured.npy", np.zeros(2, [("a", "f4"), ("b", "i4", (2,))]))
np.save("b1.npy", np.array([True, False, True]))
np.save("b1_2d.npy", np.array([[True, False, False], [False, True, True]]))
np.save("b1_2d_fortran.npy", np.asfortranarray([[True, False, False], [False, True, True]]))

np.savez("stored.npz", base=m.astype("f4"), ids=np.arange(3), wide=m.astype("f8"))
np.savez_compressed("deflated.npz", base=m.astype("f4"), ids=np.arange(3))
np.savez("one.npz", only=np.asfortranarray(m.astype("f4")))
np.savez("none.npz")

# What write_npy_* must give, byte for byte. The last header is as long as a block and gets another.
np.save("write_f4.npy", m.astype("f4"))
np.save("write_i8.npy", np.arange(5))
np.save("write_i8_0d.npy", np.int64(7))
np.save("write_f4_deep.npy", np.zeros((0, 10, 10) + (1,) * 11, "f4"))
