-- The definitions that define_metric made for a run's keys. The list is in the run's config at `_wandb`, `m`; the keys of
-- its records are the field numbers of MetricRecord in the official client's wandb_internal.proto: 1 name, 2 glob_name,
-- 4 step_metric, 5 the one-based index of the step metric in the list, 6 options, 7 summary, 8 goal.
-- A dot that belongs to a name is written \. there. A pattern ends with its only `*`.
CREATE OR REPLACE VIEW main.metric_definitions AS
SELECT entity, project, run_id, key, pattern, nullif(x_key, '') AS x_key,
       nullif(concat_ws(',',
           CASE WHEN list_contains(summary, 1) THEN 'min' END, CASE WHEN list_contains(summary, 2) THEN 'max' END,
           CASE WHEN list_contains(summary, 3) THEN 'mean' END, CASE WHEN list_contains(summary, 4) THEN 'best' END,
           CASE WHEN list_contains(summary, 5) THEN 'last' END, CASE WHEN list_contains(summary, 8) THEN 'first' END,
           CASE WHEN list_contains(summary, 7) THEN 'copy' END, CASE WHEN list_contains(summary, 6) THEN 'none' END
       ), '') AS summary,
       CASE goal WHEN '1' THEN 'minimize' WHEN '2' THEN 'maximize' END AS goal,
       coalesce(list_contains(options, 2), false) AS hidden,
       entity || '/' || project || '/' || run_id AS run_path
FROM (
    SELECT entity, project, run_id,
           replace(coalesce(one ->> '$."1"', one ->> '$."2"'), '\.', '.') AS key,
           (one ->> '$."1"') IS NULL AS pattern,
           replace(coalesce(one ->> '$."4"', defined[greatest(TRY_CAST(one ->> '$."5"' AS BIGINT), 0)] ->> '$."1"'), '\.', '.') AS x_key,
           TRY_CAST(one ->> '$."6"' AS BIGINT[]) AS options, TRY_CAST(one ->> '$."7"' AS BIGINT[]) AS summary,
           one ->> '$."8"' AS goal
    FROM (
        SELECT entity, project, run_id, defined, unnest(defined) AS one
        FROM (
            SELECT entity, project, run_id, TRY_CAST(config_meta::JSON -> '$.m' AS JSON[]) AS defined
            FROM store.run_records WHERE json_valid(config_meta)
        )
    )
)
WHERE key IS NOT NULL;
