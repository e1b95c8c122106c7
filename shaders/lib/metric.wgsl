
// ---- lib/metric: terms, sums and keys -------------------------------------------------------------------------------
// A key is made of one sum over the components, or of two (Bray-Curtis, Jaccard). Every function works on four pairs or
// on four components at once; components come as bits, because packed bits do. METRIC and DTYPE are constants
// when the driver compiles, so that one branch of each function is left.

fn two_sums() -> bool {
    return METRIC == BRAY_CURTIS || METRIC == JACCARD;
}

fn numbers(bits: vec4<u32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bits);
}

// The first sum with the terms of four more components.
fn add_first(sum: vec4<f32>, a: vec4<u32>, b: vec4<u32>) -> vec4<f32> {
    if (METRIC == INNER_PRODUCT || METRIC == COSINE) {
        return sum + numbers(a) * numbers(b);
    }
    if (METRIC == HAMMING || (METRIC == JACCARD && DTYPE == BITS)) {
        return sum + vec4<f32>(countOneBits(a ^ b));
    }
    if (METRIC == CANBERRA) {
        return sum + canberra(numbers(a), numbers(b));
    }
    if (METRIC == JENSEN_SHANNON) {
        return sum + jensen_shannon(numbers(a), numbers(b));
    }
    let d = abs(numbers(a) - numbers(b));
    if (METRIC == L2) {
        return sum + d * d;
    }
    if (METRIC == LINF) {
        return max(sum, d);
    }
    if (METRIC == LP) {
        return sum + minkowski(d);
    }
    // L1, Bray-Curtis, Jaccard.
    return sum + d;
}

// The second sum with the terms of four more components; only called if two_sums().
fn add_second(sum: vec4<f32>, a: vec4<u32>, b: vec4<u32>) -> vec4<f32> {
    if (METRIC == BRAY_CURTIS) {
        return sum + abs(numbers(a) + numbers(b));
    }
    if (DTYPE == BITS) {
        return sum + vec4<f32>(countOneBits(a | b));
    }
    return sum + max(numbers(a), numbers(b));
}

// Two partial first sums as one.
fn join(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    if (METRIC == LINF) {
        return max(a, b);
    }
    return a + b;
}

fn canberra(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let whole = abs(a) + abs(b);
    return select(abs(a - b) / whole, vec4<f32>(0.0), whole == vec4<f32>(0.0));
}

// |a-b|^P: by multiplication where that is exact enough.
fn minkowski(d: vec4<f32>) -> vec4<f32> {
    if (p.power_low != 0.0) {
        return power(d, p.power, p.power_low);
    }
    if (p.power == 2.0) {
        return d * d;
    }
    if (p.power == 1.0) {
        return d;
    }
    if (p.power == 3.0) {
        return d * d * d;
    }
    if (p.power == 4.0) {
        return (d * d) * (d * d);
    }
    if (p.power == 0.5) {
        return sqrt(d);
    }
    return power(d, p.power, 0.0);
}

// Four times the term of one component. With m = (a+b) / 2 and d = |a-b| / (a+b) it is 2 m f(d), where
// f(d) = (1+d) ln(1+d) + (1-d) ln(1-d) = sum of d^2j / (j (2j - 1)): by the series as long as the logarithms would cancel.
fn jensen_shannon(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    let whole = a + b;
    let nothing = whole == vec4<f32>(0.0);
    let divisor = select(whole, vec4<f32>(1.0), nothing);
    let d = abs(a - b) / divisor;
    let x = d * d;
    var f = vec4<f32>(1.0 / 190.0);
    f = f * x + 1.0 / 153.0;
    f = f * x + 1.0 / 120.0;
    f = f * x + 1.0 / 91.0;
    f = f * x + 1.0 / 66.0;
    f = f * x + 1.0 / 45.0;
    f = f * x + 1.0 / 28.0;
    f = f * x + 1.0 / 15.0;
    f = f * x + 1.0 / 6.0;
    f = (f * x + 1.0) * x;
    if (any(d > vec4<f32>(0.5))) {
        // 1-d from the smaller component, as the difference would lose it.
        let low = 2.0 * min(a, b) / divisor;
        let low_part = select(low * ln(low), vec4<f32>(0.0), low == vec4<f32>(0.0));
        let high = 1.0 + d;
        f = select(f, high * ln(high) + low_part, d > vec4<f32>(0.5));
    }
    return select(whole * f, vec4<f32>(0.0), nothing);
}

// The sum of a first or second sum's four parts, in all components.
fn across_first(v: vec4<f32>) -> vec4<f32> {
    let pair = join(v, v.zwxy);
    return join(pair, pair.yxwz);
}

fn across_second(v: vec4<f32>) -> vec4<f32> {
    let pair = v + v.zwxy;
    return pair + pair.yxwz;
}

// Keys as bits, from the sums of one query with four rows; one NaN, no -0.
fn keys_of(first: vec4<f32>, second: vec4<f32>, query_norm: f32, row_norm: vec4<f32>) -> vec4<u32> {
    var key = first;
    if (METRIC == INNER_PRODUCT) {
        key = -first;
    } else if (METRIC == COSINE) {
        let norms = query_norm * row_norm;
        key = select(-first / norms, vec4<f32>(0.0), norms == vec4<f32>(0.0));
    } else if (METRIC == JENSEN_SHANNON) {
        key = 0.25 * first;
    } else if (two_sums()) {
        key = select(first / second, vec4<f32>(0.0), first == vec4<f32>(0.0));
    }
    var bits = bitcast<vec4<u32>>(key);
    if (METRIC == BRAY_CURTIS) {
        // WGSL leaves the result of a division by zero open.
        bits = select(bits, vec4<u32>(INFINITY), (second == vec4<f32>(0.0)) & (first != vec4<f32>(0.0)));
    }
    bits = select(bits, vec4<u32>(NAN), (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(INFINITY));
    return select(bits, vec4<u32>(0u), bits == vec4<u32>(0x80000000u));
}
