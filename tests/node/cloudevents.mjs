// Whether events are valid by the JSON Schema of CloudEvents 1.0, as the SDK for JavaScript ships it compiled.
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

const require = createRequire(import.meta.url);
const home = dirname(require.resolve("cloudevents/package.json"));
const valid = require(join(home, "dist", "schema", "v1.js"));
const { events } = JSON.parse(process.argv[2]);
console.log(JSON.stringify({ valid: events.map((event) => valid(event)) }));
