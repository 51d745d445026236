package control

import (
	"fmt"
	"net"
	"os"
	"os/user"
	"slices"
	"strconv"

	"github.com/tailscale/peercred"
)

// Caller is who is at the other end of a connection, as the kernel and the
// user database say.
type Caller struct {
	UID      string
	GID      string
	User     string   // login name, the UID where it has none
	Groups   []string // names
	Operator bool     // may change things
}

// PeerCaller asks the kernel who opened conn (SO_PEERCRED, as of connect) and
// the user database for the name and the groups (as of now). A user without an
// entry there has no groups.
func PeerCaller(conn net.Conn) (Caller, error) {
	cred, err := peercred.Get(conn)
	if err != nil {
		return Caller{}, fmt.Errorf("read the peer's credentials: %w", err)
	}
	uid, ok := cred.UserID()
	if !ok {
		return Caller{}, fmt.Errorf("the peer has no user id")
	}
	c := Caller{UID: uid, User: uid}
	u, err := user.LookupId(uid)
	if err != nil {
		return c, nil
	}
	c.User, c.GID = u.Username, u.Gid
	gids, err := u.GroupIds()
	if err != nil {
		return c, nil
	}
	for _, gid := range gids {
		if g, err := user.LookupGroupId(gid); err == nil {
			c.Groups = append(c.Groups, g.Name)
		}
	}
	return c, nil
}

// mayChange is the whole rule: root, the daemon's own user, and the members of
// the operators' group. Whoever else can open the socket may look.
func mayChange(c Caller, group string) bool {
	return c.UID == "0" || c.UID == strconv.Itoa(os.Geteuid()) || (group != "" && slices.Contains(c.Groups, group))
}
