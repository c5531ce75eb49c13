// Runs an .onnx file in onnxruntime-web: `node onnx_web.cjs model.onnx [profile]`. Requests come by stdin, answers go to
// stdout: four bytes with the length of a JSON header, the header, then the bytes of the tensors that it names.
const { createRequire } = require('node:module');
const fs = require('node:fs');

const ARRAYS = {
  float64: Float64Array, float32: Float32Array, float16: globalThis.Float16Array ?? Uint16Array,
  int64: BigInt64Array, uint64: BigUint64Array, int32: Int32Array, uint32: Uint32Array,
  int16: Int16Array, uint16: Uint16Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
};
const { readFileSync, readSync, writeSync } = fs;
let printed = ''; // WebAssembly prints the profile of a session, in one of two ways
console.log = (line) => { printed += `${line}\n`; };
fs.writeSync = (file, text, ...rest) => (file === 1 ? (printed += text).length : writeSync(file, text, ...rest));

function read(length) {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length;) {
    const count = readSync(0, bytes, at, length - at);
    if (count === 0) process.exit(0); // the other side has gone
    at += count;
  }
  return bytes;
}

function write(bytes) {
  for (let at = 0; at < bytes.length;) at += writeSync(1, bytes, at);
}

function answer(header, tensors = []) {
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  write(Buffer.concat([length, text]));
  for (const { data } of tensors) write(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
}

function request(ort) {
  const { tensors } = JSON.parse(read(read(4).readUInt32LE()));
  return tensors.map(({ type, dims }) => {
    const size = dims.reduce((product, dim) => product * dim, 1);
    const { buffer } = new Uint8Array(read(size * ARRAYS[type].BYTES_PER_ELEMENT)); // aligned, unlike a Buffer's
    return new ort.Tensor(type, new ARRAYS[type](buffer), dims);
  });
}

async function run(session, tensors, profile) {
  const feeds = Object.fromEntries(session.inputNames.map((name, place) => [name, tensors[place]]));
  const found = await session.run(feeds);
  if (profile) session.endProfiling();
  const outputs = session.outputNames.map((name) => found[name]);
  answer({ tensors: outputs.map(({ type, dims }) => ({ type, dims })), profile: printed }, outputs);
}

function refuse(error) {
  answer({ error: String(error.message ?? error).split('\n')[0], missing: error.code === 'MODULE_NOT_FOUND' });
}

async function main(path, profile) {
  const ort = createRequire(process.cwd() + '/')('onnxruntime-web');
  ort.env.wasm.numThreads = 1;
  const session = await ort.InferenceSession.create(readFileSync(path), { enableProfiling: Boolean(profile) });
  answer({ inputs: session.inputMetadata });
  for (;;) await run(session, request(ort), profile).catch(refuse);
}

main(...process.argv.slice(2)).catch(refuse);
