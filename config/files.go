package config

import (
	"fmt"
	"os"
)

// CheckFiles looks at what the configuration points to on this host: that
// every password can be had, that private files are private, and that files
// that will be needed can be read. It is for the account that runs proxyd; the
// error is Problems.
func (c *Config) CheckFiles() error {
	r := &report{file: c.Path}
	if data, err := os.ReadFile(c.Path); err == nil {
		r.at = locate(string(data))
	}
	r.passwords(c)
	if c.Proxy.ClientTLS.Mode != "disable" {
		r.readable("proxy.client_tls.cert_file", c.Proxy.ClientTLS.CertFile)
		r.private("proxy.client_tls.key_file", c.Proxy.ClientTLS.KeyFile)
	}
	for _, f := range []struct{ key, path string }{
		{"proxy.hba_file", c.Proxy.HBAFile}, {"proxy.ident_file", c.Proxy.IdentFile},
		{"proxy.client_tls.ca_file", c.Proxy.ClientTLS.CAFile}, {"proxy.server_tls.ca_file", c.Proxy.ServerTLS.CAFile},
		{"proxy.server_tls.cert_file", c.Proxy.ServerTLS.CertFile},
	} {
		if f.path != "" {
			r.readable(f.key, f.path)
		}
	}
	if c.Proxy.ServerTLS.KeyFile != "" {
		r.private("proxy.server_tls.key_file", c.Proxy.ServerTLS.KeyFile)
	}
	if c.SSH.KeyFile != "" {
		r.private("ssh.key_file", c.SSH.KeyFile)
	}
	if c.SSH.KnownHosts != "" {
		r.readable("ssh.known_hosts", c.SSH.KnownHosts)
	}
	return r.problems.err()
}

// passwords tries each source once, where it stands: an inherited one is not
// reported again.
func (r *report) passwords(c *Config) {
	inline := false
	tried := map[Credential]bool{}
	for _, n := range c.namedCredentials() {
		source := n.Credential
		source.User = ""
		if tried[source] {
			continue
		}
		tried[source] = true
		inline = inline || n.Password.IsSet()
		if _, err := n.Resolve(); err != nil {
			r.add(n.table+"."+n.source(), err.Error(), "")
		}
	}
	if info, err := os.Stat(c.Path); inline && err == nil {
		if err := checkPrivate(c.Path, info); err != nil {
			r.add("", "a password stands in this file: "+err.Error(), "or move it to a password_file")
		}
	}
}

// source names the key that says where the password comes from.
func (c Credential) source() string {
	switch {
	case c.PasswordFile != "":
		return "password_file"
	case c.PasswordEnv != "":
		return "password_env"
	}
	return "password"
}

func (r *report) readable(at, path string) {
	f, err := os.Open(path)
	if err != nil {
		r.add(at, err.Error(), "the account that runs proxyd must be able to read it")
		return
	}
	_ = f.Close()
}

func (r *report) private(at, path string) {
	info, err := os.Stat(path)
	if err != nil {
		r.add(at, err.Error(), "the account that runs proxyd must be able to read it")
		return
	}
	if err := checkPrivate(path, info); err != nil {
		r.add(at, err.Error(), "")
		return
	}
	r.readable(at, path)
}

// Redacted is the whole configuration in force, defaults included, as TOML
// without its secrets.
func (c *Config) Redacted() string {
	var w tomlWriter
	for _, e := range c.entries() {
		w.entry(e)
	}
	return fmt.Sprintf("# in force, from %s; passwords are not shown\n%s", c.Path, w.String())
}
