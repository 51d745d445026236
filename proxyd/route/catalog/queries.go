package catalog

import "strings"

// What is volatile and yet does the same on every server: it reads a clock, or
// a source of chance that no setting seeds, or waits.
var harmlessVolatile = []string{
	"clock_timestamp", "timeofday", "gen_random_uuid", "uuidv4", "uuidv7", "pg_sleep", "pg_sleep_for", "pg_sleep_until",
	"bernoulli", "system",
}

// What is stable and yet tells of one server or one session, or cannot run in
// recovery. What begins as pg_stat_get_ is of them.
var ofOneServer = []string{
	"pg_backend_pid", "inet_server_addr", "inet_server_port", "inet_client_addr", "inet_client_port",
	"pg_conf_load_time", "pg_postmaster_start_time", "pg_show_all_settings",
	"pg_current_xact_id", "pg_current_xact_id_if_assigned", "pg_current_snapshot",
	"txid_current", "txid_current_if_assigned", "txid_current_snapshot",
	"pg_cursor", "pg_prepared_statement", "pg_prepared_xact", "pg_listening_channels",
	"pg_walfile_name", "pg_walfile_name_offset",
	"pg_get_replication_slots",
	"pg_available_extensions", "pg_available_extension_versions", "pg_extension_update_paths", // files of its host
}

// Every query runs with search_path = pg_catalog, so that nothing of a user's
// making can stand in for PostgreSQL's own, and gives text.
const (
	begin  = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
	path   = "SET LOCAL search_path TO pg_catalog, pg_temp"
	commit = "COMMIT"
)

// unsafe lists the functions that are not harmless, and why. An aggregate is
// always declared immutable; its parts tell the truth.
var unsafe = `unsafe AS (
	SELECT p.oid, n.nspname, p.proname, CASE
		WHEN p.provolatile = 'v' THEN 'is volatile'
		WHEN a.aggfnoid IS NOT NULL THEN 'has a volatile part'
		ELSE 'tells of one server or session' END AS why
	FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN pg_aggregate a ON a.aggfnoid = p.oid
	WHERE p.provolatile = 'v' AND NOT (n.nspname = 'pg_catalog' AND p.proname IN (` + quoted(harmlessVolatile) + `))
	OR n.nspname = 'pg_catalog' AND (p.proname IN (` + quoted(ofOneServer) + `) OR p.proname ^@ 'pg_stat_get_')
	OR EXISTS (SELECT FROM pg_proc f WHERE f.provolatile = 'v' AND f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn,
		a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)))`

var functionsQuery = `WITH ` + unsafe + `
	SELECT n.nspname, p.proname, coalesce(min(u.why), '')
	FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace LEFT JOIN unsafe u ON u.oid = p.oid
	GROUP BY 1, 2`

// attributesQuery: what is written as a column may call a function of one
// argument that is a row (PostgreSQL docs, 38.5.3).
var attributesQuery = `WITH ` + unsafe + `
	SELECT u.proname, min(u.why)
	FROM unsafe u JOIN pg_proc p ON p.oid = u.oid JOIN pg_type t ON t.oid = p.proargtypes[0]
	WHERE p.prokind = 'f' AND p.pronargs - p.pronargdefaults <= 1 AND t.typtype IN ('c', 'p')
	GROUP BY 1`

var operatorsQuery = `WITH ` + unsafe + `
	SELECT n.nspname, o.oprname, coalesce(min('calls ' || u.proname || ', which ' || u.why), '')
	FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace LEFT JOIN unsafe u ON u.oid = o.oprcode
	GROUP BY 1, 2`

const relationsQuery = `
	SELECT c.oid, n.nspname, c.relname, CASE
		WHEN c.relkind = 'f' THEN 'is a foreign table'
		WHEN c.relkind = 'S' THEN 'is a sequence, which runs ahead on a standby'
		WHEN c.relpersistence = 'u' THEN 'is unlogged'
		ELSE '' END
	FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
	WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S') AND c.relpersistence <> 't'`

// trees are what reading a relation runs: a view's query, the policies of a
// table. What a materialized view holds was made before.
const trees = `trees AS (
	SELECT r.ev_class AS rel, r.ev_action::text AS tree
	FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class WHERE r.ev_type = '1' AND c.relkind = 'v'
	UNION ALL SELECT polrelid, polqual::text FROM pg_policy WHERE polqual IS NOT NULL)`

// calledIn finds in a stored tree what it calls, by the fields that hold the
// functions of FuncExpr, OpExpr, ScalarArrayOpExpr, Aggref and WindowFunc.
const calledIn = `':(?:funcid|opfuncid|hashfuncid|negfuncid|aggfnoid|winfnoid) (\d+)'`

var callsQuery = `WITH ` + unsafe + `, ` + trees + `
	SELECT t.rel, min('calls ' || u.proname || ', which ' || u.why)
	FROM trees t, regexp_matches(t.tree, ` + calledIn + `, 'g') m JOIN unsafe u ON u.oid = m[1]::oid
	GROUP BY 1`

const readsQuery = `WITH ` + trees + `
	SELECT DISTINCT t.rel, m[1] FROM trees t, regexp_matches(t.tree, ':relid (\d+)', 'g') m WHERE m[1]::oid <> t.rel
	UNION ALL SELECT inhparent, inhrelid::text FROM pg_inherits`

// castsQuery: the types to which trees convert, which for a domain runs its
// constraints.
const castsQuery = `WITH ` + trees + `
	SELECT DISTINCT t.rel, m[1] FROM trees t, regexp_matches(t.tree, ':resulttype (\d+)', 'g') m JOIN pg_type y ON y.oid = m[1]::oid
	WHERE y.typnamespace <> 'pg_catalog'::regnamespace`

var typesQuery = `WITH ` + unsafe + `, causes AS (
		SELECT con.contypid AS type, 'has a constraint that calls ' || u.proname || ', which ' || u.why AS why
		FROM pg_constraint con, regexp_matches(con.conbin::text, ` + calledIn + `, 'g') m JOIN unsafe u ON u.oid = m[1]::oid
		WHERE con.contypid <> 0
	UNION ALL SELECT c.casttarget, 'has a cast that calls ' || u.proname || ', which ' || u.why
		FROM pg_cast c JOIN unsafe u ON u.oid = c.castfunc
	UNION ALL SELECT t.oid, 'is read by ' || u.proname || ', which ' || u.why
		FROM pg_type t JOIN unsafe u ON u.oid IN (t.typinput, t.typoutput))
	SELECT t.oid, n.nspname, t.typname, coalesce(min(c.why), '')
	FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace LEFT JOIN causes c ON c.type = t.oid
	LEFT JOIN pg_class r ON r.oid = t.typrelid
	WHERE t.typcategory <> 'A' AND (t.typtype <> 'c' OR r.relkind = 'c')
	GROUP BY 1, 2, 3`

const basesQuery = `
	SELECT oid, typbasetype::text FROM pg_type WHERE typbasetype <> 0
	UNION ALL SELECT r.reltype, a.atttypid::text FROM pg_class r JOIN pg_attribute a ON a.attrelid = r.oid WHERE r.relkind = 'c'
	UNION ALL SELECT rngtypid, rngsubtype::text FROM pg_range`

// implicitQuery: a cast that is not written can stand anywhere.
var implicitQuery = `WITH ` + unsafe + `
	SELECT format_type(c.castsource, NULL), format_type(c.casttarget, NULL), u.proname || ', which ' || u.why
	FROM pg_cast c JOIN unsafe u ON u.oid = c.castfunc WHERE c.castcontext = 'i' ORDER BY c.oid LIMIT 1`

// serializableQuery: a standby has no SERIALIZABLE, and a transaction that is
// it by default shows that only after its BEGIN has been answered.
const serializableQuery = `
	SELECT '' WHERE current_setting('default_transaction_isolation') = 'serializable'
	OR EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON s.setdatabase IN (0, d.oid), unnest(s.setconfig) AS setting
		WHERE d.datname = current_database() AND setting ILIKE 'default_transaction_isolation=serializable')`

// fingerprintQuery changes whenever what is read above does. Rows of xmin
// change with every change to them; what changes too often is named instead.
const fingerprintQuery = `
	SELECT string_agg(part, ' ') FROM (
	SELECT 'proc ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_proc
	UNION ALL SELECT 'aggregate ' || sum(hashtext(aggfnoid::oid::text || ' ' || xmin::text)::bigint) FROM pg_aggregate
	UNION ALL SELECT 'operator ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_operator
	UNION ALL SELECT 'cast ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_cast
	UNION ALL SELECT 'rewrite ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_rewrite
	UNION ALL SELECT 'policy ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_policy
	UNION ALL SELECT 'namespace ' || sum(hashtext(oid::text || ' ' || nspname)::bigint) FROM pg_namespace WHERE NOT nspname ^@ 'pg_temp_' AND NOT nspname ^@ 'pg_toast_'
	UNION ALL SELECT 'inherits ' || sum(hashtext(inhparent::text || ' ' || inhrelid::text)::bigint) FROM pg_inherits
	UNION ALL SELECT 'constraint ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_constraint WHERE contypid <> 0
	UNION ALL SELECT 'class ' || sum(hashtext(oid::text || ' ' || relname || ' ' || relnamespace::text || relkind::text || relpersistence::text)::bigint)
		FROM pg_class WHERE relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND relpersistence <> 't'
	UNION ALL SELECT 'type ' || sum(hashtext(oid::text || ' ' || xmin::text)::bigint) FROM pg_type WHERE typrelid = 0 AND typcategory <> 'A'
	UNION ALL SELECT 'range ' || sum(hashtext(rngtypid::text || ' ' || xmin::text)::bigint) FROM pg_range
	UNION ALL SELECT 'settings ' || current_setting('default_transaction_isolation')
	UNION ALL SELECT 'role settings ' || sum(hashtext(setdatabase::text || ' ' || setrole::text || ' ' || xmin::text)::bigint) FROM pg_db_role_setting
	) AS parts (part)`

func quoted(words []string) string { return "'" + strings.Join(words, "', '") + "'" }
