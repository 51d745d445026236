package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/BurntSushi/toml"
)

func TestASecretIsNeverShown(t *testing.T) {
	const password = "sesame"
	c := *Default()
	c.HealthCheck.Password = Secret(password)
	s := c.HealthCheck.Password
	shown := map[string]string{"Redacted": c.Redacted()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T%v", "%10s"} {
		shown["secret "+verb] = fmt.Sprintf(verb, s)
		shown["pointer "+verb] = fmt.Sprintf(verb, &s)
		shown["inside "+verb] = fmt.Sprintf(verb, c.HealthCheck)
	}
	var log, tomlText bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "inside", c.HealthCheck)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "inside", c)
	shown["slog"] = log.String()
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	shown["json"] = string(asJSON)
	if err := toml.NewEncoder(&tomlText).Encode(c); err != nil {
		t.Fatal(err)
	}
	shown["toml"] = tomlText.String()
	for how, text := range shown {
		if strings.Contains(strings.ToLower(text), password) || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", password)) {
			t.Errorf("%s shows the secret: %s", how, text)
		}
	}
	for _, how := range []string{"secret %v", "secret %#v", "secret %d", "Redacted", "json", "toml", "slog"} {
		if !strings.Contains(shown[how], "********") {
			t.Errorf("%s does not say that something is hidden: %s", how, shown[how])
		}
	}
	if s.Reveal() != password {
		t.Errorf("Reveal gave %q", s.Reveal())
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"250ms": 250 * time.Millisecond, "30s": 30 * time.Second, "1m": time.Minute,
		"1h": time.Hour, "1h30m": 90 * time.Minute, "0s": 0, "1m30s": 90 * time.Second,
	} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.Std() != want {
			t.Errorf("%s: %v, %v", text, d.Std(), err)
		}
		if d.String() != text {
			t.Errorf("%s is written as %s", text, d)
		}
	}
	for _, text := range []string{"30", "", "30 s", "1d", "abc"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "unit") {
			t.Errorf("%q: %v; want an error that speaks of the unit", text, err)
		}
	}
}

func TestCredentialResolve(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) Credential {
		return Credential{PasswordFile: write(t, dir, name, text, mode)}
	}
	t.Setenv("PGTANDEM_TEST_PASSWORD", "from the environment")
	for _, c := range []struct {
		name string
		cred Credential
		want string
	}{
		{"none", Credential{User: "postgres"}, ""},
		{"configured", Credential{Password: "as configured"}, "as configured"},
		{"environment", Credential{PasswordEnv: "PGTANDEM_TEST_PASSWORD"}, "from the environment"},
		{"file", file("a", "of the file\n", 0o600), "of the file"},
		{"file without a line end", file("b", "of the file", 0o640), "of the file"},
		{"file of another system", file("c", "of the file\r\n", 0o400), "of the file"},
		{"spaces belong to it", file("d", " of the file \n", 0o600), " of the file "},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, err := c.cred.Resolve(); err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestCredentialResolveReadsTheFileEachTime(t *testing.T) {
	dir := t.TempDir()
	c := Credential{PasswordFile: write(t, dir, "password", "old", 0o600)}
	for _, want := range []string{"old", "new", "newer"} {
		write(t, dir, "password", want, 0o600)
		if got, err := c.Resolve(); err != nil || got != want {
			t.Errorf("got %q, %v; want %q", got, err, want)
		}
	}
}

func TestCredentialResolveRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, says string
		cred       Credential
		is         error
	}{
		{"a file that is not there", "absent", Credential{PasswordFile: filepath.Join(dir, "absent")}, fs.ErrNotExist},
		{"a file the world can read", "chmod 0600", Credential{PasswordFile: write(t, dir, "w", "sesame", 0o644)}, nil},
		{"a file the group can write", "0660", Credential{PasswordFile: write(t, dir, "g", "sesame", 0o660)}, nil},
		{"an empty file", "empty", Credential{PasswordFile: write(t, dir, "e", "\n", 0o600)}, nil},
		{"two lines", "more than one line", Credential{PasswordFile: write(t, dir, "l", "sesame\nopen\n", 0o600)}, nil},
		{"a directory", "not a regular file", Credential{PasswordFile: dir}, nil},
		{"a file that is no password", "bytes", Credential{PasswordFile: write(t, dir, "big", strings.Repeat("sesame", 1000), 0o600)}, nil},
		{"a variable that is not set", "PGTANDEM_TEST_UNSET", Credential{PasswordEnv: "PGTANDEM_TEST_UNSET"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.cred.Resolve()
			if got != "" || !errors.Is(err, ErrPasswordSource) {
				t.Fatalf("got %q, %v; want ErrPasswordSource", got, err)
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("%v does not wrap %v", err, c.is)
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v does not say %q", err, c.says)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("the error holds the secret: %v", err)
			}
		})
	}
}

func TestAPasswordInAFileEveryoneCanReadIsRefused(t *testing.T) {
	text := "[ssh]\nkey_file = \"\"\nknown_hosts = \"\"\n[health_check]\npassword = \"sesame\"\n" +
		"[[node]]\nname='a'\nhost='a'\ndata_directory='/d'\n[[node]]\nname='b'\nhost='b'\ndata_directory='/d'\n"
	dir := t.TempDir()
	for mode, fine := range map[os.FileMode]bool{0o600: true, 0o640: true, 0o644: false, 0o660: false} {
		c, err := Load(write(t, dir, "pgtandem.toml", text, mode))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.CheckFiles(); (err == nil) != fine {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
}
