// Package daemon joins the parts into proxyd: it turns the configuration into
// their options, starts and stops them in order, answers the control socket
// from them, and tells the service manager how things stand.
//
// It must never decide anything about the cluster, nor hold state of its own
// that a part should hold.
package daemon
