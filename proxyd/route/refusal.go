package route

// Refusal is what a standby's error means for a read that has sent no row.
type Refusal uint8

// Refusals.
const (
	Answer    Refusal = iota // the error is the statement's own: it goes to the client
	Elsewhere                // another node may do it: Again
	OnPrimary                // no standby can do it: Primary
)

// refusals are the errors by which a standby refuses what a primary may do
// (PostgreSQL docs, appendix A).
var refusals = map[string]struct {
	what Refusal
	why  string
}{
	"25006": {OnPrimary, "the standby refused it: it writes"},                        // read_only_sql_transaction
	"0A000": {OnPrimary, "the standby refused it: that is not possible in recovery"}, // feature_not_supported: unlogged tables, SERIALIZABLE
	"55000": {OnPrimary, "the standby refused it: recovery is in progress"},          // object_not_in_prerequisite_state
	"40001": {Elsewhere, "the standby cancelled it: it stood in the way of replay"},  // serialization_failure: recovery conflict
	"40P01": {Elsewhere, "the standby cancelled it: it stood in the way of replay"},  // deadlock_detected: with the startup process
	"57P01": {Elsewhere, "the standby was stopped"},                                  // admin_shutdown
	"57P02": {Elsewhere, "the standby crashed"},                                      // crash_shutdown
	"57P03": {Elsewhere, "the standby does not accept connections yet"},              // cannot_connect_now
	"57P04": {OnPrimary, "the standby refused it: its database was dropped"},         // database_dropped
	"53300": {Elsewhere, "the standby has no connection left"},                       // too_many_connections
	"42P01": {OnPrimary, "the standby does not have the table yet"},                  // undefined_table
	"42703": {OnPrimary, "the standby does not have the column yet"},                 // undefined_column
	"42883": {OnPrimary, "the standby does not have the function yet"},               // undefined_function
	"42704": {OnPrimary, "the standby does not have the type or another object yet"}, // undefined_object
	"3F000": {OnPrimary, "the standby does not have the schema yet"},                 // invalid_schema_name
	"3D000": {OnPrimary, "the standby does not have the database yet"},               // invalid_catalog_name
	"28000": {OnPrimary, "the standby does not let the role in yet"},                 // invalid_authorization_specification
	"28P01": {OnPrimary, "the standby does not know the role's password yet"},        // invalid_password
	"42501": {OnPrimary, "the standby does not know the right yet, if there is one"}, // insufficient_privilege
}

// RefusedByStandby says what to do about an error that a standby gave before
// the first row of a read, by its SQLSTATE, and why in words. What a statement
// is told on any node is the client's to see.
func RefusedByStandby(sqlstate string) (Refusal, string) {
	r := refusals[sqlstate]
	return r.what, r.why
}
