// Runs one script of a person in Node.js, inside a job's own process: the twin of `script.py`.
// The script sees `inputs`, each input by its name, and `require` for Node's own modules. Its result is what it returns,
// or `result`, or what its `main(inputs)` returns. Line numbers are those that the person sees in the editor.
'use strict';
const fs = require('node:fs');
const vm = require('node:vm');
const { createRequire, isBuiltin } = require('node:module');

const NAME = 'your code';
const MESSAGE_LIMIT = 4000;
const TRACEBACK_LIMIT = 16000;
const job = JSON.parse(fs.readFileSync(0, 'utf8'));

function leave(kind, answer) {
  let data = Buffer.from(kind + JSON.stringify(answer));
  while (data.length) data = data.subarray(fs.writeSync(job.outcome, data));
  process.exit(0);
}

function placeOf(error) {
  const found = /your code:(\d+)/.exec(String((error && error.stack) || ''));
  return found ? Number(found[1]) : null;
}

function fail(error) {
  const known = error instanceof NotJson;
  const own = String((error && error.stack) || error).split('\n');
  const trace = own.filter((line, at) => at === 0 || !/^\s+at /.test(line) || line.includes(NAME)).join('\n');
  const memory = error instanceof RangeError && /allocation|Invalid (array|string) length/.test(error.message);
  const full = error && (error.code === 'ENOSPC' || error.code === 'EFBIG');
  const room = `There is no room for more files: those of the code may take ${job.disk / 1048576} MB.`;
  leave('E', {
    kind: known ? 'result' : error instanceof SyntaxError && error.early ? 'syntax' : memory ? 'memory' : 'exception',
    type: known ? error.type : (error && error.name) || typeof error,
    message: full ? room : String((error && error.message) || error).slice(0, MESSAGE_LIMIT),
    line: known ? null : placeOf(error),
    traceback: known ? '' : trace.slice(0, TRACEBACK_LIMIT),
  });
}

class NotJson extends Error {
  constructor(path, reason, type) {
    super(`\`result${path}\` ${reason}`);
    this.type = type;
  }
}

// JSON.stringify drops or bends what it does not know; people want to be told.
function check(value, path, above) {
  if (value === null || value === undefined || typeof value === 'boolean' || typeof value === 'string') return;
  const type = typeof value === 'object' ? (value.constructor && value.constructor.name) || 'Object' : typeof value;
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new NotJson(path, `is ${value}, which JSON cannot hold. Use null instead.`, type);
    return;
  }
  if (typeof value !== 'object') throw new NotJson(path, `is of type ${type}, which JSON cannot hold.`, type);
  if (above.length > 64 || above.includes(value)) throw new NotJson(path, 'is nested too deeply, or contains itself.', type);
  if (Array.isArray(value)) {
    value.forEach((item, index) => check(item, `${path}[${index}]`, [...above, value]));
  } else if (typeof value.toJSON !== 'function') {
    if (value instanceof Map || value instanceof Set) {
      throw new NotJson(path, `is of type ${type}, which JSON cannot hold. Use \`Array.from(…)\` or \`Object.fromEntries(…)\`.`, type);
    }
    for (const key of Object.keys(value)) check(value[key], `${path}.${key}`, [...above, value]);
  }
}

function answer(value) {
  check(value, '', []);
  const text = JSON.stringify(value === undefined ? null : value);
  if (Buffer.byteLength(text) > job.result) {
    const mebibytes = (size) => (size / 1048576).toFixed(1);
    throw new NotJson('', `is ${mebibytes(Buffer.byteLength(text))} MiB, more than the ${mebibytes(job.result)} MiB that a worker may hand back.`, null);
  }
  let data = Buffer.from('V' + text);
  while (data.length) data = data.subarray(fs.writeSync(job.outcome, data));
  process.exit(0);
}

const own = createRequire('/workspace/code.js');
function requireBuiltin(name) {
  if (!isBuiltin(name)) throw new Error(`There is no module “${name}” here, only those of Node.js itself.`);
  return own(name);
}

process.on('uncaughtException', fail);
process.on('unhandledRejection', fail);

const RESERVED = new Set(
  ('await async break case catch class const continue debugger default delete do else enum export extends false finally for function if ' +
    'implements import in instanceof interface let new null package private protected public return static super switch this throw true ' +
    'try typeof var void while with yield arguments eval inputs require result main undefined NaN Infinity').split(' '),
);
const inputs = JSON.parse(job.inputs);
const names = Object.keys(inputs).filter((name) => /^[A-Za-z_$][\w$]*$/.test(name) && !RESERVED.has(name));
const before = `(async function (require, inputs${names.map((name) => ', ' + name).join('')}) {`;
const after = `\n;if (typeof main === 'function') return main(inputs);\nif (typeof result !== 'undefined') return result;\n})`;

let program;
try {
  program = new vm.Script(before + job.code + after, { filename: NAME, columnOffset: -before.length }).runInThisContext();
} catch (error) {
  if (error instanceof SyntaxError) error.early = true;
  fail(error);
}
program(requireBuiltin, inputs, ...names.map((name) => inputs[name])).then(answer).catch(fail);
