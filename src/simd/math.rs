//! Logarithm and power of one lane, without branches, so that a loop over lanes can be vectorised.

/// x = m 2^e with m in [sqrt(1/2), sqrt(2)); 0 becomes m = 1, e = -127. For normal x >= 0.
#[inline(always)]
fn split(x: f32) -> (f32, f32) {
    const ROOT_HALF: u32 = 0x3f35_04f3;
    let bits = x.to_bits().wrapping_add(0x3f80_0000 - ROOT_HALF);
    let exponent = (bits >> 23) as i32 - 127;
    (f32::from_bits((bits & 0x007f_ffff) + ROOT_HALF), exponent as f32)
}

/// ln m for m in [sqrt(1/2), sqrt(2)): 2 atanh((m - 1) / (m + 1)) by its series; the next term is below 2^-30.
#[inline(always)]
fn ln_near_one(m: f32) -> f32 {
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = ((z * (1.0 / 11.0) + 1.0 / 9.0) * z + 1.0 / 7.0) * z + 1.0 / 5.0;
    2.0 * s + 2.0 * s * z * (series * z + 1.0 / 3.0)
}

/// ln x for normal x > 0 within about 2 ulp; some finite number for smaller x and 0.
#[inline(always)]
pub(super) fn ln(x: f32) -> f32 {
    // ln 2 in two parts, the first short enough that its product with an exponent is exact.
    const HIGH: f32 = 0.693_359_4;
    const LOW: f32 = -2.121_944_4e-4;
    let (m, e) = split(x);
    (ln_near_one(m) + e * LOW) + e * HIGH
}

/// x^p for x >= 0, p > 0, within about (4 + p) ulp: the exponent is carried in f64, so that it costs nothing.
#[inline(always)]
pub(super) fn pow(x: f32, p: f32) -> f32 {
    // Subnormal numbers are lifted into the normal range first.
    let small = x < f32::MIN_POSITIVE;
    let (m, e) = split(if small { x * f32::powi(2.0, 24) } else { x });
    let e = if small { e - 24.0 } else { e };
    let log2 = f64::from(ln_near_one(m)) * std::f64::consts::LOG2_E + f64::from(e);
    let t = (log2 * f64::from(p)).clamp(-400.0, 400.0);
    // Adding 1.5 * 2^52 rounds to the nearest whole number.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    let whole = (t + ROUND) - ROUND;
    let r = (t - whole) as f32 * std::f32::consts::LN_2;
    let exp =
        (((((r * (1.0 / 5040.0) + 1.0 / 720.0) * r + 1.0 / 120.0) * r + 1.0 / 24.0) * r + 1.0 / 6.0) * r + 0.5) * r * r
            + r
            + 1.0;
    // 2^whole in four factors, each of which is a normal number.
    let n = whole as i32;
    let quarter = |k: i32| f32::from_bits(((n + k) >> 2).wrapping_add(127).cast_unsigned() << 23);
    let power = exp * quarter(0) * quarter(1) * quarter(2) * quarter(3);
    if x == 0.0 { 0.0 } else { power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_and_pow_are_as_accurate_as_promised() {
        let u = f64::powi(2.0, -24);
        let mut x = 1.2e-38f32;
        while x < 1e38 {
            let want = f64::from(x).ln();
            assert!((f64::from(ln(x)) - want).abs() <= 5.0 * u * want.abs().max(0.05), "ln {x}");
            for p in [0.3f32, 0.5, 1.5, 3.0, 7.7] {
                let want = f64::from(x).powf(f64::from(p));
                if want < 3e38 && want > 1.2e-38 {
                    let bound = (8.0 + 4.0 * f64::from(p)) * u * want;
                    assert!((f64::from(pow(x, p)) - want).abs() <= bound, "{x} ^ {p}: {} {want}", pow(x, p));
                }
            }
            x *= 1.0173;
        }
        assert_eq!(pow(0.0, 0.5), 0.0);
        assert_eq!(pow(1.0, 2.5), 1.0);
        assert_eq!(pow(f32::MAX, 2.0), f32::INFINITY);
        assert!((pow(1e-42, 0.5) / 1e-42f64.sqrt() as f32 - 1.0).abs() < 1e-3);
    }
}
