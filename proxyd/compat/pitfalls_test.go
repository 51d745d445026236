package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// pitfall is what went wrong in another proxy, or what somebody could do to one,
// and the tests that show that it does not here.
type pitfall struct {
	what  string
	tests []string // "directory below proxyd: test function", with "/ words of the case" where it is one of many
}

// bugs are those of others that tell the most.
var bugs = []pitfall{
	{"a COPY fails on the server while the client still sends: the server stays active (PgBouncer 1470)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / COPY in that fails on the server while the client still sends", "session: TestACopyThatFailsBeforeItReads"}},
	{"Sync is ignored in copy-in of the extended protocol: a ReadyForQuery too many (pgdog 885, PgBouncer 1025)",
		[]string{"session: TestCopyOfTheExtendedProtocol", "session: TestEveryStoryIsAnsweredAsWithoutTheProxy / COPY in, Flush and Sync on the way mean nothing"}},
	{"a server is released in the middle of a COPY (pgcat 522)",
		[]string{"session: TestAServerIsNotGivenAwayInTheMiddle / of a COPY"}},
	{"a ReadyForQuery in the middle of a sequence when no server can be had (pgcat 137)",
		[]string{"session: TestAnExtendedQueryThatGetsNoServer"}},
	{"a simple query inside of what is skipped up to Sync is counted as a Sync (Odyssey)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / a simple query between an error and Sync is ignored"}},
	{"two queries in one pipeline never end (Supavisor)",
		[]string{"session: TestPipelines", "session: TestWaitingInLine"}},
	{"a Sync that nobody sent commits early (ProxySQL 5118, 5119)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / an error undoes all that its Sync covers"}},
	{"a LISTEN is answered with ReadyForQuery before Sync (pgdog 1512)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / LISTEN is answered before Sync without a ReadyForQuery"}},
	{"psycopg's pipeline mode fails (pgdog 680)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / a driver's pipeline: statements are prepared, described, used and closed on the way"}},
	{"a Parse that failed keeps its name (Supavisor 1175)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / a Parse that fails leaves its name free"}},
	{"what one client left unanswered is answered to another (pgdog 876, 913)",
		[]string{"session: TestAnAnswerOfAClientThatIsGoneReachesNobody"}},
	{"DEALLOCATE of a name of the protocol, from PDO (PgBouncer 991)",
		[]string{"session: TestEveryStoryIsAnsweredAsWithoutTheProxy / DEALLOCATE by a query", "session/statement: TestScanDeallocate / pdo_stmt_00000001"}},
	{"cached plan must not change result type (PgBouncer 1038)",
		[]string{"session: TestDDLUnderAPreparedStatement", "session: TestEveryStoryIsAnsweredAsWithoutTheProxy / a statement whose result changes under it"}},
	{"what SQL prepared is the next client's (YugabyteDB 33914)",
		[]string{"session: TestWhatSQLPreparesIsItsClientsAlone"}},
	{"a statement is shared by clients whose search_path differs (pg_doorman)",
		[]string{"session: TestAStatementMeansWhatItsOwnClientMeans / search_path"}},
	{"a cancel request that comes late hits another client (PgBouncer 245, 717, pgdog 1505)",
		[]string{"session: TestAStormOfCancelRequests", "session: TestCancel", "session: TestAWrongKeyCancelsNothing"}},
	{"a storm of cancel requests ends the pooler (Odyssey 84, PgBouncer 822)",
		[]string{"session: TestAStormOfCancelRequests"}},
	{"a session's advisory lock stays behind on a server",
		[]string{"session: TestNoAdvisoryLockIsLeftBehind"}},
	{"default_transaction_read_only, or a parameter of one's own, is the next client's (YugabyteDB 33166)",
		[]string{"session: TestAReadOnlySessionIsItsClientsAlone", "session: TestWhatCannotBeCleanedIsNotReused / a parameter of its own"}},
	{"writes in a WITH clause, and FOR NO KEY UPDATE, go to a standby (pgcat 829, 887)",
		[]string{"route/classify: TestClassify / WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a", "route/classify: TestClassify / FOR NO KEY UPDATE", "daemon: TestReadsOnARealPair / WITH gone AS (DELETE"}},
	{"an extended query goes where the one before it went (ProxySQL 5387)",
		[]string{"daemon: TestReadsMessageByMessage / a write behind a read", "session: TestAFlightAcrossTransactions"}},
	{"a deadlock when both sides send, and a Flush during COPY (pgpool-II 136, 79)",
		[]string{"session: TestMuchInBothDirectionsAtOnce", "session: TestEveryStoryIsAnsweredAsWithoutTheProxy / COPY in, Flush and Sync on the way mean nothing"}},
	{"PAUSE ends servers that are logging in, and then refuses clients (PgBouncer 420)",
		[]string{"session: TestNobodyIsRefusedWhoLogsInWhileTheGateMoves", "session: TestPauseUnderLoad"}},
	{"a restart in place loses what was buffered, and connections with TLS (PgBouncer 894)",
		[]string{"daemon: TestUpgradeInPlace", "handover: TestTheNextProcessHasTheSockets"}},
	{"a slow reader, one large message, or one long list costs memory or time without bound, and function calls are dropped (ProxySQL 1232, pgdog 1061, pg_doorman)",
		[]string{"session: TestAClientThatDoesNotReadCostsNoMemory", "session: TestAClientThatDoesNotReadIsClosed", "session: TestALongStatement", "session: TestEveryStoryIsAnsweredAsWithoutTheProxy / a function call"}},
}

// holes are what was found in others by those who look for such.
var holes = []pitfall{
	{"CVE-2012-4575: a name that is too long ends the pooler",
		[]string{"session: TestStartupIsAnsweredAsPostgreSQLDoes / CVE-2012-4575"}},
	{"CVE-2015-6817: an unknown user is somebody else",
		[]string{"session: TestNothingRunsBeforeTheProof", "session: TestAFailureTakesTheSameWay", "auth: TestUnknownRolesAreNotTold"}},
	{"CVE-2021-3935, CVE-2021-23214, Odyssey CVE-2021-43766: plaintext before TLS is believed",
		[]string{"session: TestBytesBehindARequestOfEncryption", "session: TestBytesBehindSSLRequest"}},
	{"CVE-2021-23222, Odyssey CVE-2021-43767: plaintext of a server before TLS is believed",
		[]string{"session: TestHostileServers / CVE-2021-23222"}},
	{"CVE-2025-2291: a password that has expired opens",
		[]string{"session: TestRefusedLogins / expired", "daemon: TestValidUntil", "auth: TestLogin / SCRAM, expired"}},
	{"CVE-2025-12819, Odyssey 149: a startup parameter is SQL that runs before the login",
		[]string{"session: TestNothingRunsBeforeTheProof"}},
	{"CVE-2026-6664: a length that overflows",
		[]string{"wire: TestHeaderDoesNotWrap", "session: TestLyingLengths", "session: TestHostileServers / CVE-2026-6664"}},
	{"CVE-2026-6665: a server's long nonce",
		[]string{"session: TestHostileServers / CVE-2026-6665", "wire: FuzzScramClient"}},
	{"CVE-2026-6666: a server's error without a code",
		[]string{"session: TestHostileServers / CVE-2026-6666", "wire: FuzzNotice"}},
	{"CVE-2026-6667: KILL_CLIENT for anybody",
		[]string{"admin: TestCommands / KILL_CLIENT 3", "admin: TestEveryChangeIsForAdmins", "admin: FuzzConsoleMessages"}},
	{"pgpool-II CVE-2023-22332: a SHOW tells a password",
		[]string{"daemon: TestNoSecretIsToldAnywhere", "session: TestNoSecretIsTold", "../config: TestASecretIsNeverShown"}},
	{"pgpool-II CVE-2024-10977's kind: an error in place of TLS is shown",
		[]string{"session: TestHostileServers / CVE-2024-10977"}},
	{"pgpool-II CVE-2024-45624: what is kept for one user is given to another",
		[]string{"session: TestWhatOneUserMaySeeIsNoOthers", "session: TestAStatementMeansWhatItsOwnClientMeans"}},
	{"pgpool-II CVE-2025-46801: a combination of methods lets anybody in",
		[]string{"session: TestLoginsAreWhatPostgreSQLMakesOfThem", "auth: TestNobodyWithoutARule"}},
	{"pgx CVE-2024-27304: a message of more than 4 GB is two; a zero byte in a value is a parameter",
		[]string{"wire: TestHeaderDoesNotWrap", "wire: TestStartup / a zero byte in a value"}},
	{"x/crypto CVE-2023-48795 (Terrapin), CVE-2026-42508 (revoked host keys), and what pgx mended of SCRAM",
		[]string{"compat: TestLibrariesHaveTheirFixes"}},
	{"Patroni 1734: a change of the configuration that nobody sees runs commands on the servers",
		[]string{"control: TestTheRoutesAreFrozen", "control: TestEveryChangeIsAudited", "control: TestWhoMayChange"}},
}

// limits are those of what nobody has to prove himself for, or of what somebody
// who has may cost the others.
var limits = []pitfall{
	{"a startup packet has 8 to 10,000 bytes, and memory only for what has come",
		[]string{"wire: TestAStartupPacketHasOnlyTheRoomItFills", "session: TestLyingLengths"}},
	{"a message of the login has at most 1024 bytes from a client, 64 kB from a server",
		[]string{"session: TestLyingLengths", "wire: TestReadMessageIsBounded", "session: TestAServerSaysTooMuch / a giant parameter"}},
	{"a connection that has proved nothing costs at most 8 kB",
		[]string{"session: TestWhoHasProvedNothingCostsLittle"}},
	{"small messages have at most 10 kB, others less than 1 GiB, and other types end the session",
		[]string{"wire: TestCheckFrontend", "session: TestUnknownMessageEndsTheSession", "session: TestALengthThatPromisesMuchReservesNothing", "session: TestAMessageIsAsLongAsAllowed"}},
	{"TLS and login have one deadline, however slowly somebody talks",
		[]string{"session: TestTheLoginTimeoutIsAbsolute", "session: TestLoginTimeout"}},
	{"encryption is asked for once", []string{"session: TestRequestsOfEncryption"}},
	{"few connections that have proved nothing, in all and from one address",
		[]string{"session: TestTheDoorman", "session: TestNobodyFromOneAddressHasAllThePlaces", "session: TestAFloodOfSilenceKeepsNobodyOut", "session: TestAFloodLeavesRoomForOtherAddresses", "session: TestWhoGivesWay"}},
	{"they are a tenth of those that there may be, and none of these", []string{"../config: TestStrangersAreATenth", "session: TestAFloodLeavesRoomForOtherAddresses / startup packets, and no proof"}},
	{"who does not exist fails like who does",
		[]string{"session: TestAFailureTakesTheSameWay", "wire: TestMock"}},
	{"keys of cancel requests are long, compared in constant time, and tried slowly",
		[]string{"wire: TestCancelKeys", "session: TestANewerProtocol", "session: TestGuesses", "session: TestWhoHasGuessedTooOftenCancelsNothing"}},
	{"a client that does not read costs no memory, and is closed in time",
		[]string{"session: TestAClientThatDoesNotReadCostsNoMemory", "session: TestAClientThatDoesNotReadIsClosed", "session: TestASlowReaderIsNotTakenForADeafOne", "relay: TestAPeerThatDoesNotRead"}},
	{"a server is no more trusted than a client",
		[]string{"session: TestHostileServers", "session: TestAServerSaysTooMuch", "auth: TestAHostileServer", "session: TestSomebodyBetweenUsAndTheServer", "session: FuzzServerBytes", "session: FuzzServerLogin"}},
	{"a server's certificate and name are verified, and SCRAM is bound to the channel",
		[]string{"session: TestServerTLS", "session: TestTheServersName", "session: TestLibpqsModesAgainstOurs", "session: TestSomebodyBetweenUsAndTheServer", "session: TestAServerThatDoesNotBind"}},
	{"a server that asks for less than SCRAM gets no password, and is not believed where that is required",
		[]string{"auth: TestAHostileServer / it wants the password", "auth: TestWhereSCRAMIsRequired", "session: TestServerAuthenticationMethods"}},
	{"a server's count of rounds keeps nobody busy",
		[]string{"session: TestAServerSaysTooMuch / more rounds than a processor does", "../engine/provision: TestAStoredVerifier"}},
	{"no secret is in a log, an error or an answer",
		[]string{"daemon: TestNoSecretIsToldAnywhere", "session: TestNoSecretIsTold", "session: TestLoginsAreWhatPostgreSQLMakesOfThem / a verifier is in the log", "wire: TestCancelKeys"}},
	{"a host's key is checked, and is the one on record where it has several",
		[]string{"../engine/execute/ssh: TestTrust / another host key is on record", "../engine/execute/ssh: TestTheRecordedHostKeyIsAskedFor"}},
	{"a file with a secret is ours, and nobody else reads it",
		[]string{"../engine/execute/ssh: TestTrust / the login key may be read by others", "../engine/execute/ssh: TestWhoseKeyIsTaken", "../config: TestAPasswordInAFileEveryoneCanReadIsRefused"}},
	{"a host that is reached by ssh gets neither an agent nor a way in, and is bounded in what it says",
		[]string{"../engine/execute/ssh: TestAMachineGetsNothingOfOurs", "../engine/execute/ssh: TestWhatIsNoSSHD", "../engine/execute/ssh: FuzzImpostor", "../engine/execute/ssh: TestOutputWithoutEndIsRefused", "../engine/execute/ssh: TestSilentMachineIsUnreachable"}},
	{"no shell string is made from data", []string{"../engine/execute/ssh: TestEveryWordArrivesAsItWasGiven"}},
	{"the control socket has mode 0660 in a directory of 0750, and the kernel says at each request who asks",
		[]string{"control: TestListen", "control: TestWhoMayChange", "control: TestTheOperatorGroupCanBeChangedWhileServing"}},
	{"what changes a cluster is a plan that was shown, and the name of its node",
		[]string{"daemon: TestADaemonOnARealPair / another name", "../tui/app: FuzzKeysNeverChangeAnythingWithoutTheName"}},
	{"scrapes are few at a time, short, and of one path", []string{"daemon: TestTheListenerForMetrics"}},
	{"every change is audited, and who tried one", []string{"control: TestEveryChangeIsAudited", "admin: TestChangesAreAudited"}},
}

// TestEveryPitfallHasATest that is still there under its name.
func TestEveryPitfallHasATest(t *testing.T) {
	if len(bugs) != 25 {
		t.Errorf("%d bugs of others, want all 25", len(bugs))
	}
	packages := make(map[string][]testFile)
	for _, list := range [][]pitfall{bugs, holes, limits} {
		for _, p := range list {
			if len(p.tests) == 0 {
				t.Errorf("%s: nothing shows it", p.what)
			}
			for _, test := range p.tests {
				directory, rest, _ := strings.Cut(test, ": ")
				if packages[directory] == nil {
					packages[directory] = testFiles(t, filepath.Join("..", directory))
				}
				function, words, _ := strings.Cut(rest, " / ")
				if !slices.ContainsFunc(packages[directory], func(f testFile) bool { return f.has(function, words) }) {
					t.Errorf("%s: there is no %s", p.what, test)
				}
			}
		}
	}
}

// TestLibrariesHaveTheirFixes: what others have found in what we do not write.
func TestLibrariesHaveTheirFixes(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for module, least := range map[string]string{"golang.org/x/crypto": "v0.54.0", "github.com/jackc/pgx/v5": "v5.10.0"} {
		_, after, found := strings.Cut(string(text), "\t"+module+" ")
		version, _, _ := strings.Cut(after, "\n")
		if !found || slices.Compare(numbers(t, version), numbers(t, least)) < 0 {
			t.Errorf("%s %s is older than %s", module, version, least)
		}
	}
}

// numbers are those of a version.
func numbers(t *testing.T, version string) (out []int) {
	t.Helper()
	for part := range strings.SplitSeq(strings.TrimPrefix(version, "v"), ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			t.Fatalf("%q: %v", version, err)
		}
		out = append(out, n)
	}
	return out
}

// testFile is what a file of tests consists of.
type testFile struct {
	functions []string
	said      []string // the texts in it, of which cases have their names
}

// has says whether the file has the function, and a case of these words.
func (f testFile) has(function, words string) bool {
	return slices.Contains(f.functions, function) &&
		(words == "" || slices.ContainsFunc(f.said, func(s string) bool { return strings.Contains(s, words) }))
}

func testFiles(t *testing.T, directory string) (files []testFile) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(directory, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		parsed, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		var f testFile
		ast.Inspect(parsed, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Recv == nil {
					f.functions = append(f.functions, n.Name.Name)
				}
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
					f.said = append(f.said, s)
				}
			}
			return true
		})
		files = append(files, f)
	}
	return files
}
