-- Which database this is: it changes when it is restored elsewhere or another server takes over.
SELECT concat_ws(
    '/',
    (SELECT system_identifier FROM pg_control_system()),
    (SELECT timeline_id FROM pg_control_checkpoint()),
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    '"sillage".log'::regclass::oid
)
