-- No table has the name of a published relation: tools that look up columns by the name of a relation alone find one.
ALTER TABLE store.runs RENAME TO run_records;
ALTER TABLE store.projects RENAME TO project_records;
ALTER TABLE store.console RENAME TO console_lines;
ALTER TABLE store.history_keys RENAME TO run_keys;
ALTER TABLE store.local_runs RENAME TO local_states;
ALTER TABLE store.run_changes RENAME TO change_records;
ALTER TABLE store.run_metadata RENAME TO metadata_documents;
ALTER TABLE store.run_tags RENAME TO tag_positions;
ALTER TABLE store.system_metrics RENAME TO system_values;

-- Programs that know no migration of this number cannot read the published file.
INSERT INTO store.meta VALUES ('readable_from', '14');
