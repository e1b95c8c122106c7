//! The forms in which callers have rows.

use half::{bf16, f16};

use super::{BitsView, MatrixView, RowsView, ShapeError};

/// Anything that holds rows: what `add`, `search` and their kin take.
///
/// | what | rows | copied |
/// |---|---|---|
/// | `(&[T], dim)`, `(&Vec<T>, dim)` | dense rows of `dim` elements | no |
/// | `&[[T; D]]`, `&[[T; D]; N]`, `&Vec<[T; D]>` | one per inner array | no |
/// | `&[T]`, `&[T; D]`, `&Vec<T>` | one row | no |
/// | [`MatrixView`], [`BitsView`], [`RowsView`], [`&Matrix`](crate::format::Matrix) | their own | no |
/// | `&[Vec<f32>]`, `&Vec<Vec<f32>>` | one per vector | once |
/// | `ndarray::ArrayView2<T>`, `&ndarray::Array2<T>` (feature `ndarray`) | the first axis | only where a row is not contiguous |
/// | `&arrow_array::FixedSizeListArray` of f64, f32, f16, i8, u8, i32 or i64 (feature `arrow`) | one per list | no |
///
/// `T` is f32, f16, bf16, i8, u8, f64, i32 or i64.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut index = nearfield::Flat::new(&nearfield::Device::cpu(), 2, nearfield::Metric::L2)?;
/// index.add(&[[1.0, 2.0], [3.0, 4.0]])?;
/// index.add((&[5.0, 6.0, 7.0, 8.0][..], 2))?;
/// index.add(&vec![vec![9.0, 10.0], vec![11.0, 12.0]])?;
/// assert_eq!(index.search(&[9.0, 9.0], 1)?.ids(), [4]);
/// # Ok(()) }
/// ```
pub trait IntoRows<'a> {
    /// The rows.
    ///
    /// # Errors
    /// [`ShapeError`] where they are no matrix.
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError>;
}

/// Rows that are the caller's, or a copy of them where they did not lie together.
#[derive(Clone, Debug)]
pub struct AnyRows<'a>(Held<'a>);

/// Rows that are seen, or held as a vector and the components per row.
macro_rules! held {
    ($($variant:ident $t:ty),*) => {
        #[derive(Clone, Debug)]
        enum Held<'a> {
            View(RowsView<'a>),
            Bits(Vec<u8>, usize),
            $($variant(Vec<$t>, usize),)*
        }

        impl AnyRows<'_> {
            /// The rows.
            pub fn view(&self) -> RowsView<'_> {
                const CHECKED: &str = "checked when it was made";
                match &self.0 {
                    Held::View(view) => *view,
                    Held::Bits(bytes, dim) => RowsView::Bits(BitsView::new(bytes, *dim).expect(CHECKED)),
                    $(Held::$variant(data, dim) => RowsView::$variant(MatrixView::new(data, *dim).expect(CHECKED)),)*
                }
            }

            /// The rows, copied unless they are a copy already.
            pub fn into_owned(self) -> AnyRows<'static> {
                fn all<T: Copy>(m: MatrixView<'_, T>) -> Vec<T> {
                    (0..m.rows()).flat_map(|i| m.row(i)).copied().collect()
                }
                AnyRows(match self.0 {
                    Held::View(RowsView::Bits(m)) => Held::Bits(all(m.bytes()), m.dim()),
                    Held::Bits(bytes, dim) => Held::Bits(bytes, dim),
                    $(
                        Held::View(RowsView::$variant(m)) => Held::$variant(all(m), m.dim()),
                        Held::$variant(data, dim) => Held::$variant(data, dim),
                    )*
                })
            }
        }
    };
}

held!(F32 f32, F16 f16, Bf16 bf16, I8 i8, U8 u8, F64 f64, I32 i32, I64 i64);

impl<'a> AnyRows<'a> {
    /// These rows as engines take them: f32 where the type is wider, rounded to the nearest.
    pub(crate) fn narrow(self) -> AnyRows<'a> {
        let view = self.view();
        if view.dtype().is_wide() { AnyRows(Held::F32(view.floats(), view.dim())) } else { self }
    }

    /// A copy of rows, which this owns.
    fn owned<T: Copied>(data: Vec<T>, dim: usize) -> Result<Self, ShapeError> {
        MatrixView::new(&data, dim)?;
        Ok(AnyRows(T::held(data, dim)))
    }
}

/// Element types of which copies are made.
trait Copied: Sized {
    fn held<'a>(data: Vec<Self>, dim: usize) -> Held<'a>;
}

impl<'a> From<RowsView<'a>> for AnyRows<'a> {
    fn from(view: RowsView<'a>) -> AnyRows<'a> {
        AnyRows(Held::View(view))
    }
}

impl<'a> IntoRows<'a> for AnyRows<'a> {
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
        Ok(self)
    }
}

/// What is rows without further ado.
macro_rules! as_view {
    ([$($generics:tt)*] $t:ty) => {
        impl<'a, $($generics)*> IntoRows<'a> for $t {
            fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
                Ok(RowsView::from(self).into())
            }
        }
    };
}

macro_rules! elements {
    ($($t:ty => $variant:ident),*) => {$(
        impl Copied for $t {
            fn held<'a>(data: Vec<$t>, dim: usize) -> Held<'a> {
                Held::$variant(data, dim)
            }
        }
        as_view!([] MatrixView<'a, $t>);
        as_view!([const D: usize] &'a [[$t; D]]);
        as_view!([const D: usize, const N: usize] &'a [[$t; D]; N]);
        as_view!([const D: usize] &'a Vec<[$t; D]>);
        as_view!([] &'a [$t]);
        as_view!([const D: usize] &'a [$t; D]);
        as_view!([] &'a Vec<$t>);
    )*};
}

elements!(f32 => F32, f16 => F16, bf16 => Bf16, i8 => I8, u8 => U8, f64 => F64, i32 => I32, i64 => I64);
// One for all types: so literals get theirs.
impl<'a, T> IntoRows<'a> for (&'a [T], usize)
where
    RowsView<'a>: From<MatrixView<'a, T>>,
{
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
        Ok(RowsView::new(self.0, self.1)?.into())
    }
}
impl<'a, T> IntoRows<'a> for (&'a Vec<T>, usize)
where
    RowsView<'a>: From<MatrixView<'a, T>>,
{
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
        (&self.0[..], self.1).into_rows()
    }
}
as_view!([] RowsView<'a>);
as_view!([] BitsView<'a>);

impl<'a> IntoRows<'a> for &'a [Vec<f32>] {
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
        let Some(first) = self.first() else { return Err(ShapeError::NoVectors) };
        let wanted = first.len();
        if let Some(row) = self.iter().position(|v| v.len() != wanted) {
            return Err(ShapeError::Ragged { row, wanted, found: self[row].len() });
        }
        AnyRows::owned(self.concat(), wanted)
    }
}

impl<'a> IntoRows<'a> for &'a Vec<Vec<f32>> {
    fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
        self[..].into_rows()
    }
}

#[cfg(feature = "ndarray")]
mod of_ndarray {
    use ndarray::{Array2, ArrayView2};

    use super::{AnyRows, Copied, IntoRows, MatrixView, RowsView, ShapeError};

    impl<'a, T: Copied + Copy> IntoRows<'a> for ArrayView2<'a, T>
    where
        RowsView<'a>: From<MatrixView<'a, T>>,
    {
        fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
            match self.to_slice() {
                Some(dense) => Ok(RowsView::new(dense, self.ncols())?.into()),
                None => AnyRows::owned(self.iter().copied().collect(), self.ncols()),
            }
        }
    }

    impl<'a, T: Copied + Copy> IntoRows<'a> for &'a Array2<T>
    where
        RowsView<'a>: From<MatrixView<'a, T>>,
    {
        fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
            self.view().into_rows()
        }
    }
}

#[cfg(feature = "arrow")]
mod of_arrow {
    use arrow_array::types::{
        ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int32Type, Int64Type, UInt8Type,
    };
    use arrow_array::{Array, FixedSizeListArray, PrimitiveArray};

    use super::{AnyRows, IntoRows, RowsView, ShapeError};

    impl<'a> IntoRows<'a> for &'a FixedSizeListArray {
        fn into_rows(self) -> Result<AnyRows<'a>, ShapeError> {
            let wanted = "lists of f64, f32, f16, i8, u8, i32 or i64 without nulls";
            let values = self.values();
            if self.null_count() > 0 || values.null_count() > 0 {
                let found = format!("{} null lists and {} null numbers", self.null_count(), values.null_count());
                return Err(ShapeError::Array { wanted, found });
            }
            let dim = self.value_length().max(0) as usize;
            // The values of a slice are sliced with it.
            let range = ..self.len() * dim;
            fn typed<T: ArrowPrimitiveType>(values: &dyn Array) -> Option<&[T::Native]> {
                values.as_any().downcast_ref::<PrimitiveArray<T>>().map(|values| &values.values()[..])
            }
            macro_rules! first_of {
                ($($t:ty),*) => {
                    $(if let Some(all) = typed::<$t>(values) {
                        return Ok(RowsView::new(&all[range], dim)?.into());
                    })*
                };
            }
            first_of!(Float32Type, Float16Type, Int8Type, UInt8Type, Float64Type, Int32Type, Int64Type);
            Err(ShapeError::Array { wanted, found: format!("lists of {}", values.data_type()) })
        }
    }
}
