package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/pgtandem/pgtandem/engine/store"
)

// smallest is the size of an empty database: four of the smallest pages.
const smallest = 4 * 4096

// create makes an empty store where there is no file. It appears at its path
// only when it is whole and on disk, so that a file which is empty or cut short
// is always damage, and never taken for a fresh start.
func create(dir, path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(dir, ".new-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // nothing of worth is left in it
	fresh := filepath.Join(tmp, FileName)
	db, err := bbolt.Open(fresh, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketOps, bucketEvents} {
			if _, err := tx.CreateBucket(b); err != nil {
				return err
			}
		}
		return tx.Bucket(bucketMeta).Put(keySchema, []byte(strconv.Itoa(schema)))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, leaves alone what another process made
	// meanwhile.
	if err := os.Link(fresh, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// openFile opens the database. bbolt tells damage by errors and by panics, and
// a file cut short by a memory fault; all become one error, and the file is let
// go of.
func openFile(path string, timeout time.Duration) (db *bbolt.DB, err error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if fi.Size() < smallest {
		return nil, fmt.Errorf("%w: it is %d bytes long", store.ErrDamaged, fi.Size())
	}
	var file *os.File
	err = guard(func() (err error) {
		db, err = bbolt.Open(path, 0o600, &bbolt.Options{Timeout: timeout, FreelistType: bbolt.FreelistMapType,
			OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
				file, err = os.OpenFile(name, flag, mode)
				return file, err
			}})
		return err
	})
	if errors.Is(err, store.ErrDamaged) && file != nil {
		_ = file.Close() // bbolt has closed it where it could
	}
	return db, err
}

// guard turns what bbolt says of a damaged file into one error.
func guard(f func() error) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", store.ErrDamaged, p)
		}
	}()
	err = f()
	for _, damage := range []error{berrors.ErrInvalid, berrors.ErrInvalidMapping, berrors.ErrChecksum, berrors.ErrVersionMismatch} {
		if errors.Is(err, damage) {
			return fmt.Errorf("%w: %w", store.ErrDamaged, err)
		}
	}
	return err
}
