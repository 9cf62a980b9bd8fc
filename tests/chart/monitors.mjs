// Holds the objects of monitoring.coreos.com/v1 on standard input (a JSON list) against the operator's own schemas, which
// lie in the folder given; ends with 1 at the first bad one.
import fs from 'node:fs';

for (const object of JSON.parse(fs.readFileSync(0))) {
  const kinds = await import(`${process.argv[2]}/monitoring.coreos.com/v1/${object.kind}.js`);
  new kinds[object.kind](object).validate();
}
