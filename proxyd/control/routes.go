package control

import (
	"net/http"

	"github.com/pgtandem/pgtandem/proxyd/api"
)

// Access is what a route needs of its caller.
type Access string

// Kinds of access.
const (
	Look   Access = "look"   // whoever can open the socket
	Change Access = "change" // operators; audited
)

// Route is one line of the table.
type Route struct {
	Method string
	Path   string
	Access Access
	Query  []string // parameters it knows; others are refused
	serve  func(*Server, http.ResponseWriter, *http.Request) error
}

// Routes is the whole table, sorted by path and method.
func Routes() []Route {
	return []Route{
		{"GET", api.PathMetrics, Look, nil, (*Server).metrics},
		{"GET", api.PathClients, Look, nil, (*Server).clients},
		{"GET", api.PathConfig, Look, nil, (*Server).config},
		{"GET", api.PathDrills, Look, nil, (*Server).drills},
		{"POST", api.PathDrills, Change, nil, (*Server).startDrill},
		{"GET", api.PathDrillReports, Look, nil, (*Server).drillReports},
		{"GET", api.PathEvents, Look, []string{"since", "limit", "format"}, (*Server).events},
		{"POST", api.PathMaintenance, Change, nil, (*Server).maintenance},
		{"GET", api.PathOperations, Look, nil, (*Server).operations},
		{"GET", api.PathOperation, Look, []string{"wait"}, (*Server).operation},
		{"POST", api.PathPlans, Look, nil, (*Server).plan},
		{"GET", api.PathPlan, Look, nil, (*Server).planByID},
		{"POST", api.PathPlanRun, Change, nil, (*Server).run},
		{"GET", api.PathPools, Look, nil, (*Server).pools},
		{"POST", api.PathReload, Change, nil, (*Server).reload},
		{"GET", api.PathState, Look, nil, (*Server).state},
		{"GET", api.PathSyncFiles, Look, nil, (*Server).syncFiles},
	}
}
