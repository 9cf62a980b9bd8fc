// Holds the objects on standard input (a JSON list) against the schemas of the package in the folder given, which has one
// of each kind; says what is wrong and ends with 1. The schemas let through what they do not know, so each field is put to
// the test: with a value that fits no type in its place, a known one is refused.
import fs from 'node:fs';

function* unknown(fits, object, path) {
  for (const [key, value] of Object.entries(object)) {
    object[key] = () => {};
    if (fits()) yield `${path}.${key} is no field`;
    object[key] = value;
    if (value && typeof value === 'object') yield* unknown(fits, value, `${path}.${key}`);
  }
}

for (const object of JSON.parse(fs.readFileSync(0))) {
  const kind = (await import(`${process.argv[2]}/${object.apiVersion}/${object.kind}.js`))[object.kind];
  const problem = () => {
    try {
      return new kind(object).validate();
    } catch (error) {
      return error.message;
    }
  };
  const found = [problem(), ...unknown(() => !problem(), object, '')].filter(Boolean);
  for (const line of found) console.error(`${object.kind} ${object.metadata.name}: ${line}`);
  if (found.length) process.exitCode = 1;
}
