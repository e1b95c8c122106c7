
// ---- lib/halves: f16 as f32 -------------------------------------------------------------------------------------------

// Two f16 as the bits of f32. Devices may take a denormal f16 for zero, so these are converted by hand.
fn halves(word: u32) -> vec2<u32> {
    if ((word & 0x7c00u) != 0u && (word & 0x7c000000u) != 0u) {
        return bitcast<vec2<u32>>(unpack2x16float(word));
    }
    let half = vec2<u32>(word & 0xffffu, word >> 16u);
    let magnitude = half & vec2<u32>(0x7fffu);
    let normal = (magnitude << vec2<u32>(13u)) + vec2<u32>(112u << 23u);
    let denormal = bitcast<vec2<u32>>(vec2<f32>(magnitude) * 0x1p-24f);
    return select(normal, denormal, magnitude < vec2<u32>(0x0400u)) | ((half & vec2<u32>(0x8000u)) << vec2<u32>(16u));
}
