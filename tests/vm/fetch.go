package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// fetchTools are what fetching needs, with the packages that have them.
var fetchTools = map[string]string{
	"apt-get": "apt", "apt-cache": "apt", "dpkg-deb": "dpkg", "depmod": "kmod",
	"xz": "xz-utils", "lz4": "lz4", "zstd": "zstd",
}

// fetch brings the newest build of a kernel line into the cache and returns
// it. Two fetches at once wait for each other. The error wraps errUnavailable
// if this host cannot have the kernel.
func fetch(ctx context.Context, k kernel, log io.Writer) (image, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return image{}, fmt.Errorf("%w: kernel %s is for linux/amd64, this is %s/%s",
			errUnavailable, k.name, runtime.GOOS, runtime.GOARCH)
	}
	if err := requireTools(fetchTools); err != nil {
		return image{}, err
	}
	cache, err := cacheDir()
	if err != nil {
		return image{}, err
	}
	unlock, err := lock(cache)
	if err != nil {
		return image{}, err
	}
	defer unlock()

	description, err := output(ctx, "", "apt-cache", "show", "--no-all-versions", k.meta)
	if err != nil {
		return image{}, fmt.Errorf("%w: apt knows no package %s (Debian bookworm has it, after apt-get update): %v",
			errUnavailable, k.meta, err)
	}
	pkg, version, err := metaDependency(description)
	if err != nil {
		return image{}, fmt.Errorf("%w: package %s: %v", errUnavailable, k.meta, err)
	}
	release := strings.TrimPrefix(pkg, "linux-image-")
	current := release + " " + version
	if old, err := cached(k); err == nil && old.release+" "+old.version == current {
		return old, nil
	}

	fmt.Fprintf(log, "vm: fetching Linux %s, package %s version %s\n", k.name, pkg, version)
	// Built aside and renamed, so that what is in the cache is whole.
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return image{}, fmt.Errorf("make work folder: %w", err)
	}
	defer os.RemoveAll(work)
	if _, err := output(ctx, work, "apt-get", "download", pkg+"="+version); err != nil {
		return image{}, fmt.Errorf("%w: cannot download %s version %s: %v", errUnavailable, pkg, version, err)
	}
	if err := unpack(ctx, work, release); err != nil {
		return image{}, err
	}
	done := image{dir: buildDir(cache, release, version), release: release, version: version}
	if err := os.RemoveAll(done.dir); err != nil {
		return image{}, fmt.Errorf("remove incomplete kernel: %w", err)
	}
	if err := os.Rename(filepath.Join(work, "image"), done.dir); err != nil {
		return image{}, fmt.Errorf("move kernel into the cache: %w", err)
	}
	mark := filepath.Join(cache, k.name+".current")
	if err := os.WriteFile(mark, []byte(current+"\n"), 0o644); err != nil {
		return image{}, fmt.Errorf("note current kernel: %w", err)
	}
	return done, nil
}

// unpack turns the one package in the work folder into work/image with the
// files of an image.
func unpack(ctx context.Context, work, release string) error {
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("unpack kernel: want one package in %s, found %d (%v)", work, len(packages), err)
	}
	full, small := filepath.Join(work, "full"), filepath.Join(work, "small")
	if _, err := output(ctx, work, "dpkg-deb", "-x", packages[0], full); err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	target := image{dir: filepath.Join(work, "image")}
	if err := os.Mkdir(target.dir, 0o755); err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	if err := unpackKernel(ctx, filepath.Join(full, "boot", "vmlinuz-"+release), target.vmlinux()); err != nil {
		return err
	}
	if err := unpackModules(ctx, full, small, release); err != nil {
		return err
	}
	archive, err := appendArchive(target.modules())
	if err != nil {
		return err
	}
	archive.tree(filepath.Join(small, "lib", "modules", release), "/usr/lib/modules/"+release, nil)
	return archive.close()
}

// unpackKernel writes the ELF kernel inside a vmlinuz to a file: booting it
// saves the emulated machine the seconds of unpacking.
func unpackKernel(ctx context.Context, vmlinuz, vmlinux string) error {
	bzImage, err := os.ReadFile(vmlinuz)
	if err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	compressed, tool, err := payload(bzImage)
	if err != nil {
		return err
	}
	out, err := os.Create(vmlinux)
	if err != nil {
		return fmt.Errorf("unpack kernel: %w", err)
	}
	defer out.Close()
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, tool, "-dc")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(compressed), out, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("unpack kernel: %s: %w: %s", tool, err, stderr.String())
	}
	return out.Close()
}

// unpackModules copies the modules that tests use from a full tree to a small
// one, uncompressed, and writes the index that the guest's modprobe reads.
func unpackModules(ctx context.Context, full, small, release string) error {
	if _, err := output(ctx, "", "depmod", "-b", full, release); err != nil {
		return fmt.Errorf("index modules: %w", err)
	}
	from := filepath.Join(full, "lib", "modules", release)
	to := filepath.Join(small, "lib", "modules", release)
	index, err := os.ReadFile(filepath.Join(from, "modules.dep"))
	if err != nil {
		return fmt.Errorf("index modules: %w", err)
	}
	modules := pickModules(string(index))
	if len(modules) == 0 {
		return fmt.Errorf("index modules: none of the wanted modules is in %s", release)
	}
	// depmod reads these to tell what is built in.
	for _, module := range append(modules, "modules.builtin", "modules.builtin.modinfo", "modules.order") {
		data, err := os.ReadFile(filepath.Join(from, module))
		if err != nil {
			return fmt.Errorf("copy module: %w", err)
		}
		name, packed := strings.CutSuffix(module, ".xz")
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("copy module: %w", err)
		}
		if packed {
			target += ".xz"
		}
		if err := os.WriteFile(target, data, 0o644); err != nil {
			return fmt.Errorf("copy module: %w", err)
		}
	}
	if err := unpackXZ(ctx, to); err != nil {
		return err
	}
	if _, err := output(ctx, "", "depmod", "-b", small, release); err != nil {
		return fmt.Errorf("index modules: %w", err)
	}
	return nil
}

// unpackXZ unpacks every .xz file of a tree in place, with one process for all.
func unpackXZ(ctx context.Context, dir string) error {
	var packed []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".xz") {
			packed = append(packed, path)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("unpack modules: %w", err)
	}
	if len(packed) == 0 {
		return nil
	}
	if _, err := output(ctx, "", "xz", append([]string{"-d", "--"}, packed...)...); err != nil {
		return fmt.Errorf("unpack modules: %w", err)
	}
	return nil
}

// requireTools returns an error that wraps errUnavailable and names every
// missing tool with the package that has it.
func requireTools(tools map[string]string) error {
	var missing []string
	for tool, pkg := range tools {
		if _, err := lookTool(tool); err != nil {
			missing = append(missing, fmt.Sprintf("%s (package %s)", tool, pkg))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%w: missing %s", errUnavailable, strings.Join(sorted(missing), ", "))
	}
	return nil
}

// lock makes the cache folder and takes its lock; unlock gives it back.
func lock(cache string) (unlock func(), err error) {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("make cache folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(cache, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock cache folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock cache folder: %w", err)
	}
	return func() { f.Close() }, nil
}

// output runs a command in a folder and returns what it prints; the error
// carries its standard error.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	path, err := lookTool(name)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &stdout, &stderr
	// Not localised, so that texts and errors are the same everywhere.
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
