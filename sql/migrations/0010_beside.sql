-- What tells that something beside a local run's file has changed. Null for a file that was read before this was noted:
-- such a file is read again from its start, since some values were taken wrong then.
ALTER TABLE store.local_files ADD COLUMN beside VARCHAR;
