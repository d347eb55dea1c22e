// Reads a published file through DuckDB's Node client, as Evidence does; prints columns and rows of each query as JSON.
// Usage: node node_reads.mjs MODULES FILE < queries.json
import { createRequire } from 'node:module';
import { readFileSync } from 'node:fs';

const [modules, file] = process.argv.slice(2);
const { DuckDBInstance } = createRequire(`${modules}/`)('@duckdb/node-api');
const instance = await DuckDBInstance.create(file, { access_mode: 'READ_ONLY' });
const connection = await instance.connect();
const found = {};
for (const [relation, query] of Object.entries(JSON.parse(readFileSync(0, 'utf8')))) {
  const reader = await connection.runAndReadAll(query);
  const types = reader.columnTypes().map(String);
  const columns = Object.fromEntries(reader.columnNames().map((name, place) => [name, types[place]]));
  const rows = reader.getRowsJson().length;
  found[relation] = { columns, rows };
}
console.log(JSON.stringify(found));
