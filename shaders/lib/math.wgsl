
// ---- lib/math: logarithm and power with an error of a few units in the last place -----------------------------------
// WGSL's own log and pow may be wrong in the third digit. Polynomials: Moshier, Cephes (logf, exp2f).

struct Logarithm {
    exponent: vec4<f32>, // a whole number
    natural: vec4<f32>, // ln of the mantissa, which lies between sqrt(1/2) and sqrt(2)
}

// Of x > 0.
fn logarithm(x: vec4<f32>) -> Logarithm {
    let given = bitcast<vec4<u32>>(x);
    let denormal = given < vec4<u32>(0x00800000u);
    let bits = select(given, bitcast<vec4<u32>>(vec4<f32>(given)), denormal);
    let exponent = bitcast<vec4<i32>>(bits - vec4<u32>(0x3f3504f3u)) >> vec4<u32>(23u);
    let t = bitcast<vec4<f32>>(bits - (bitcast<vec4<u32>>(exponent) << vec4<u32>(23u))) - 1.0;
    var s = vec4<f32>(7.0376836292e-2);
    s = s * t - 1.1514610310e-1;
    s = s * t + 1.1676998740e-1;
    s = s * t - 1.2420140846e-1;
    s = s * t + 1.4249322787e-1;
    s = s * t - 1.6668057665e-1;
    s = s * t + 2.0000714765e-1;
    s = s * t - 2.4999993993e-1;
    s = s * t + 3.3333331174e-1;
    let squared = t * t;
    return Logarithm(vec4<f32>(exponent) - select(vec4<f32>(0.0), vec4<f32>(149.0), denormal), t + (t * squared * s - 0.5 * squared));
}

// Natural logarithm of x > 0.
fn ln(x: vec4<f32>) -> vec4<f32> {
    let l = logarithm(x);
    // ln 2 in two parts, the first exact times any exponent.
    return l.exponent * 0.693359375 + (l.natural - l.exponent * 2.12194440e-4);
}

// x to the power P, for x >= 0; P > 0 in two parts, the first of at most 12 bits, so that its product with an exponent is
// exact and the whole number in it can be taken off without loss.
fn power(x: vec4<f32>, high: f32, low: f32) -> vec4<f32> {
    let l = logarithm(x);
    let mantissa = l.natural * 1.44269504;
    let product = l.exponent * high;
    let rest = high * mantissa + low * (l.exponent + mantissa);
    let whole = clamp(round(product + rest), vec4<f32>(-252.0), vec4<f32>(254.0));
    let f = clamp((product - whole) + rest, vec4<f32>(-1.0), vec4<f32>(1.0));
    var s = vec4<f32>(1.535336188319500e-4);
    s = s * f + 1.339887440266574e-3;
    s = s * f + 9.618437357674640e-3;
    s = s * f + 5.550332471162809e-2;
    s = s * f + 2.402264791363012e-1;
    s = s * f + 6.931472028550421e-1;
    s = s * f + 1.0;
    // Twice half the exponent: 2^whole itself may not be a number.
    let half = vec4<i32>(whole) >> vec4<u32>(1u);
    let other = vec4<i32>(whole) - half;
    let scaled = s * two_to(half) * two_to(other);
    return select(scaled, vec4<f32>(0.0), x == vec4<f32>(0.0));
}

// 2^n for -126 <= n <= 127.
fn two_to(n: vec4<i32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(n + 127) << vec4<u32>(23u));
}
