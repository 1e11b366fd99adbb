-- What is kept of the layers below the first trained one: how many of the batches since the last report were found, what
-- is kept now, and how long computing what was found in this attempt had taken.

INSERT INTO metric_names (name, unit, better) VALUES
    ('prefix_hits', 'share', 'higher'),
    ('prefix_bytes', 'bytes', NULL),
    ('prefix_seconds_saved', 's', 'higher')
ON CONFLICT (name) DO UPDATE SET unit = excluded.unit, better = excluded.better;
