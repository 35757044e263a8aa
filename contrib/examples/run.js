// usage: node run.js SANDBOX
const fs = require("node:fs");

const sandbox = process.argv[2];
fs.writeFileSync(`${sandbox}/workspace/job.sh`, 'echo "working in $(pwd)"\nexit 3\n');

const fd = fs.openSync(`${sandbox}/ctl/exec`, fs.constants.O_RDWR);
const some = Buffer.alloc(65536);
const run = some.toString("utf8", 0, fs.readSync(fd, some)).trim();
fs.writeSync(fd, "sh job.sh\n");
for (let n; (n = fs.readSync(fd, some)) > 0; ) fs.writeSync(1, some, 0, n); // as it comes
const code = fs.readFileSync(`${sandbox}/ctl/runs/${run}/exit`, "utf8").trim();
fs.closeSync(fd);
if (!/^\d+$/.test(code)) throw new Error(`the end of the run is ${code}`);
process.exitCode = Number(code);
