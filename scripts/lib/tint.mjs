// Runs every text of a folder through Tint, and makes a pipeline of each of its settings with Dawn.
// usage: node check.mjs FOLDER      (beside node_modules/webgpu; see scripts/check-shaders)
import { readdirSync, readFileSync } from 'node:fs';
import { create, globals } from 'webgpu';

Object.assign(globalThis, globals);
const folder = process.argv[2];
const gpu = create(['backend=vulkan']);
const adapter = await gpu.requestAdapter();
if (!adapter) fail('Dawn finds no Vulkan adapter (VK_DRIVER_FILES names one)');
const subgroups = adapter.features.has('subgroups');
const device = await adapter.requestDevice({ requiredFeatures: subgroups ? ['subgroups'] : [] });
let errors = 0, texts = 0, pipelines = 0;

function fail(message) {
  console.error(`check-shaders: ${message}`);
  process.exit(1);
}

// A broken text must be noticed: a barrier that only some threads reach.
const broken = `@compute @workgroup_size(64) fn f(@builtin(local_invocation_index) i: u32) { if (i < 3u) { workgroupBarrier(); } }`;
if ((await messages(broken)).length == 0) fail('Tint did not notice a barrier in non-uniform control flow');

async function messages(code) {
  device.pushErrorScope('validation');
  const info = await device.createShaderModule({ code }).getCompilationInfo();
  await device.popErrorScope();
  return info.messages.filter((m) => m.type != 'info').map((m) => `${m.lineNum}:${m.linePos} ${m.type}: ${m.message}`);
}

for (const file of readdirSync(folder).filter((f) => f.endsWith('.wgsl')).sort()) {
  const name = file.replace(/\.wgsl$/, '');
  const code = readFileSync(`${folder}/${file}`, 'utf8');
  if (code.startsWith('enable subgroups') && !subgroups) fail('this adapter has no subgroups');
  texts++;
  const found = await messages(code);
  for (const message of found) console.error(`${file}:${message}`);
  errors += found.length;
  // Browsers have no immediates yet that a pipeline layout could name.
  if (found.length || !name.endsWith('.uniform')) continue;
  const { entry, settings } = JSON.parse(readFileSync(`${folder}/${name}.json`, 'utf8'));
  const module = device.createShaderModule({ code });
  for (const constants of settings) {
    device.pushErrorScope('validation');
    device.createComputePipeline({ layout: 'auto', compute: { module, entryPoint: entry, constants } });
    const error = await device.popErrorScope();
    pipelines++;
    if (error) {
      console.error(`${file} ${JSON.stringify(constants)}: ${error.message}`);
      errors++;
    }
  }
}
if (texts == 0) fail(`no texts in ${folder}`);
console.log(`check-shaders: Tint: ${texts} texts, ${pipelines} pipelines, ${errors} errors (${adapter.info.description})`);
process.exit(errors ? 1 : 0);
