// y = a x + y over 4 million f32: two are read and one is written for each multiply-add.
override A: f32 = 2.0;

@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if (i < arrayLength(&x)) {
        y[i] = fma(vec4<f32>(A), x[i], y[i]);
    }
}
