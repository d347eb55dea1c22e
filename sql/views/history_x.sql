-- Every number with its x value on the axis that define_metric gave its key: the last finite value of `x_key` at or before
-- the step, NULL before the first one. Without a definition x is the step.
-- The window is partitioned by run and key so that DuckDB pushes conditions on these down to the history.
CREATE OR REPLACE VIEW main.history_x AS
WITH placed AS (
    SELECT entity, project, run_id, key, x_key, step, value,
           last_value(x IGNORE NULLS) OVER (
               PARTITION BY entity, project, run_id, key ORDER BY step, x IS NULL
               ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
           ) AS x
    FROM (
        SELECT h.entity, h.project, h.run_id, h.key, a.x_key, h.step, h.value, CAST(NULL AS DOUBLE) AS x
        FROM main.history AS h
        JOIN store.history_axes AS a ON a.entity = h.entity AND a.project = h.project AND a.run_id = h.run_id AND a.key = h.key
        WHERE h.value IS NOT NULL
        UNION ALL
        SELECT h.entity, h.project, h.run_id, a.key, a.x_key, h.step, NULL, h.value
        FROM main.history AS h
        JOIN store.history_axes AS a ON a.entity = h.entity AND a.project = h.project AND a.run_id = h.run_id AND a.x_key = h.key
        WHERE isfinite(h.value)
    )
)
SELECT h.entity, h.project, h.run_id, h.key, '_step' AS x_key, CAST(h.step AS DOUBLE) AS x, h.step, h.value, h.run_path
FROM main.history AS h
LEFT JOIN store.history_axes AS a ON a.entity = h.entity AND a.project = h.project AND a.run_id = h.run_id AND a.key = h.key
WHERE h.value IS NOT NULL AND a.x_key IS NULL
UNION ALL
SELECT entity, project, run_id, key, x_key, x, step, value, entity || '/' || project || '/' || run_id AS run_path
FROM placed
WHERE value IS NOT NULL;
