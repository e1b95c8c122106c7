//! Principal components: the directions in which rows vary most.

use crate::engine::Device;
use crate::error::SearchError;
use crate::linalg::{dot_f64, leading};
use crate::types::{DType, IntoRows, MatrixView, Metric, RowsView};

/// Rows whose products are summed at a time.
const ROWS_PER_SUM: usize = 8192;

/// The mean of rows, and the orthonormal directions of most variance (Hotelling 1933), the first of which has most.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PrincipalComponents {
    /// `[dim]`.
    pub mean: Vec<f32>,
    /// `[k, dim]`, each of length 1 and with its largest component positive.
    pub directions: Vec<f32>,
    /// `[k]`: the variance of the rows in each direction.
    pub variances: Vec<f32>,
    /// The variance in all directions.
    pub total: f32,
}

impl PrincipalComponents {
    /// Where rows `[n, dim]` lie along the directions: `[n, k]`.
    ///
    /// # Errors
    /// [`SearchError`]: another dim, NaN or infinity, or the device failed.
    pub fn project<'a>(&self, device: &Device, rows: impl IntoRows<'a>) -> Result<Vec<f32>, SearchError> {
        let directions = MatrixView::new(&self.directions, self.mean.len())?;
        let mut places = device.distances(rows.into_rows()?.view(), directions, Metric::InnerProduct)?;
        let middle: Vec<f64> = (0..directions.rows()).map(|i| dot_f64(directions.row(i), &self.mean)).collect();
        for place in places.chunks_mut(middle.len().max(1)) {
            place.iter_mut().zip(&middle).for_each(|(x, m)| *x = (f64::from(*x) - m) as f32);
        }
        Ok(places)
    }
}

impl Device {
    /// The `k` principal components of rows `[n, dim]` of any element type but packed bits; at most `dim` of them.
    ///
    /// Takes O(n dim^2) operations on the device, which sums the products of the components, and O(dim^3) on one thread at
    /// most. Blocks until it is done.
    ///
    /// # Errors
    /// [`SearchError`]: `k` is 0, no rows, packed bits, NaN or infinity, or the device failed.
    pub fn principal_components<'a>(
        &self,
        rows: impl IntoRows<'a>,
        k: usize,
    ) -> Result<PrincipalComponents, SearchError> {
        let _entered = self.enter();
        let rows = rows.into_rows()?;
        let rows = rows.view();
        let (n, dim) = (rows.rows(), rows.dim());
        if k == 0 {
            return Err(SearchError::ZeroK);
        }
        if rows.dtype() == DType::Bits {
            return Err(SearchError::Unsupported { metric: Metric::InnerProduct, dtype: DType::Bits });
        }
        if n == 0 || dim == 0 {
            return Err(SearchError::Length { what: "rows", wanted: 1, found: 0 });
        }
        let mean = mean(&rows)?;
        let mut moments = vec![0.0f64; dim * dim];
        for start in (0..n).step_by(ROWS_PER_SUM) {
            let columns = columns(&rows.slice(start, (start + ROWS_PER_SUM).min(n)), &mean);
            let columns = MatrixView::new(&columns, columns.len() / dim)?;
            let products = self.distances(columns, columns, Metric::InnerProduct)?;
            for (i, row) in products.chunks_exact(dim).enumerate() {
                // Both halves are one product; taking the mean makes the matrix symmetric whatever the order of sums.
                row.iter().enumerate().for_each(|(j, &x)| {
                    moments[i * dim + j] += f64::from(x) / (2.0 * n as f64);
                    moments[j * dim + i] += f64::from(x) / (2.0 * n as f64);
                });
            }
        }
        let total: f64 = (0..dim).map(|i| moments[i * dim + i]).sum();
        let kept = k.min(dim);
        let (vectors, values) = leading(&moments, dim, kept).ok_or_else(|| {
            crate::compute::EngineError::Mismatch("the moments of the rows are not finite".to_owned())
        })?;
        let mut directions: Vec<f32> = (0..kept * dim).map(|i| vectors[i % dim * kept + i / dim] as f32).collect();
        directions.chunks_exact_mut(dim).for_each(turn);
        let variances = values.iter().map(|&v| v.max(0.0) as f32).collect();
        Ok(PrincipalComponents { mean, directions, variances, total: total as f32 })
    }
}

fn mean(rows: &RowsView<'_>) -> Result<Vec<f32>, SearchError> {
    let (mut sums, mut x) = (vec![0.0f64; rows.dim()], vec![0.0; rows.dim()]);
    for row in 0..rows.rows() {
        rows.row_f32(row, &mut x);
        if let Some((component, &value)) = x.iter().enumerate().find(|(_, x)| !x.is_finite()) {
            return Err(SearchError::RowNotFinite { row, component, value });
        }
        sums.iter_mut().zip(&x).for_each(|(s, &x)| *s += f64::from(x));
    }
    Ok(sums.iter().map(|s| (s / rows.rows() as f64) as f32).collect())
}

/// The rows less the mean, one column after the other: `[dim, n]`.
fn columns(rows: &RowsView<'_>, mean: &[f32]) -> Vec<f32> {
    let n = rows.rows();
    let (mut columns, mut x) = (vec![0.0; n * rows.dim()], vec![0.0; rows.dim()]);
    for row in 0..n {
        rows.row_f32(row, &mut x);
        for (d, (x, m)) in x.iter().zip(mean).enumerate() {
            columns[d * n + row] = x - m;
        }
    }
    columns
}

/// Either sign of a direction is right; this chooses one.
fn turn(direction: &mut [f32]) {
    let largest = direction.iter().copied().fold(0.0f32, |a, b| if b.abs() > a.abs() { b } else { a });
    if largest < 0.0 {
        direction.iter_mut().for_each(|x| *x = -*x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    /// Points with known variances along turned axes.
    fn points(n: usize) -> Vec<[f32; 6]> {
        let mut random = Random::new(3);
        let mut random = || random.signed();
        (0..n)
            .map(|_| {
                let (a, b, c) = (5.0 * random(), 2.0 * random(), random());
                [a + b + 10.0, a - b, c, 0.1 * random(), 3.0, 0.1 * random()]
            })
            .collect()
    }

    #[test]
    fn directions_are_those_of_the_spread() {
        let rows = points(10_000);
        let device = Device::cpu();
        let found = device.principal_components(&rows, 3).unwrap();
        let s = std::f32::consts::FRAC_1_SQRT_2;
        for (i, wanted) in [[s, s, 0.0], [s, -s, 0.0], [0.0, 0.0, 1.0]].iter().enumerate() {
            let direction = &found.directions[i * 6..][..6];
            let dot: f32 = direction.iter().zip(wanted).map(|(a, b)| a * b).sum();
            assert!(dot.abs() > 0.999, "{i}: {direction:?}");
            assert!((dot_of(direction) - 1.0).abs() < 1e-5);
        }
        // Uniform on [-w, w] has variance w^2 / 3; both first axes are sqrt(2) long.
        for (variance, wanted) in found.variances.iter().zip([2.0 * 25.0 / 3.0, 2.0 * 4.0 / 3.0, 1.0 / 3.0]) {
            assert!((variance / wanted - 1.0).abs() < 0.05, "{variance} {wanted}");
        }
        assert!(found.variances.iter().sum::<f32>() / found.total > 0.99);
        let places = found.project(&device, &rows).unwrap();
        let mean: f32 = places.chunks(3).map(|p| p[0]).sum::<f32>() / 10_000.0;
        let variance = places.chunks(3).map(|p| p[0] * p[0]).sum::<f32>() / 10_000.0;
        assert!(mean.abs() < 1e-3 && (variance / found.variances[0] - 1.0).abs() < 1e-3, "{mean} {variance}");
    }

    fn dot_of(x: &[f32]) -> f32 {
        x.iter().map(|x| x * x).sum()
    }

    #[test]
    fn rows_that_do_not_vary_and_wrong_ones() {
        let device = Device::cpu();
        let same = device.principal_components(&[[1.0, 2.0]; 5], 9).unwrap();
        assert_eq!((same.variances, same.total, same.directions.len()), (vec![0.0, 0.0], 0.0, 4));
        assert!(matches!(device.principal_components(&[[1.0]], 0), Err(SearchError::ZeroK)));
        assert!(device.principal_components(&[[0.0; 3]; 0], 1).is_err());
        let wrong = device.principal_components(&[[1.0, 2.0], [0.0, f32::NAN]], 1).unwrap_err();
        assert!(matches!(wrong, SearchError::RowNotFinite { row: 1, component: 1, .. }));
    }
}
