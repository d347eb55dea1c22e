-- The text of a number with a fraction follows from the number, so it is not stored. Readers use the view store.leaves.
ALTER TABLE store.leaves RENAME TO leaf_rows;
