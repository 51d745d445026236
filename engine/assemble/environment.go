package assemble

import "os"

// libpq are the variables that change a connection whatever its own words are.
// Passwords are not among them: ours are always given, and a configuration may
// name the variable that holds one.
var libpq = []string{"PGSERVICE", "PGSERVICEFILE", "PGTARGETSESSIONATTRS", "PGOPTIONS", "PGAPPNAME", "PGTZ",
	"PGSSLCERT", "PGSSLKEY", "PGSSLPASSWORD", "PGSSLROOTCERT", "PGSSLSNI", "PGSSLNEGOTIATION", "PGCHANNELBINDING", "PGREQUIREAUTH",
	"PGMINPROTOCOLVERSION", "PGMAXPROTOCOLVERSION"}

// ForgetLibpq takes libpq's variables out of this process, whose driver heeds
// them too: what a person has set for psql is not meant for the engine, which
// would take every primary for lost under PGTARGETSESSIONATTRS=standby.
func ForgetLibpq() {
	for _, name := range libpq {
		_ = os.Unsetenv(name) // fails for malformed names alone
	}
}
