// Holds the PodMonitors on standard input (a JSON list) against the operator's own schema, which lies in the folder given;
// ends with 1 at the first bad one.
import fs from 'node:fs';

const { PodMonitor } = await import(`${process.argv[2]}/monitoring.coreos.com/v1/PodMonitor.js`);
for (const monitor of JSON.parse(fs.readFileSync(0))) new PodMonitor(monitor).validate();
