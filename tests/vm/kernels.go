package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is a kernel line that tests run on.
type kernel struct {
	name string // as in --kernel
	meta string // Debian's package that depends on the newest build of the line
}

var kernels = []kernel{
	{"6.1", "linux-image-cloud-amd64"},
	{"6.12", "linux-image-6.12-cloud-amd64"},
}

func kernelNames() []string {
	var names []string
	for _, k := range kernels {
		names = append(names, k.name)
	}
	return names
}

func kernelByName(name string) (kernel, error) {
	for _, k := range kernels {
		if k.name == name {
			return k, nil
		}
	}
	return kernel{}, fmt.Errorf("%w: unknown kernel %q: want one of %s",
		errUsage, name, strings.Join(kernelNames(), ", "))
}

// image is a kernel in the cache, ready to boot.
type image struct {
	dir     string // the cache folder of this build
	release string // as uname -r prints it
	version string // Debian's package version
}

func (i image) vmlinux() string { return filepath.Join(i.dir, "vmlinux") }
func (i image) modules() string { return filepath.Join(i.dir, "modules.cpio") }

// cacheDir is where the kernels are kept; nothing else is in it.
func cacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find cache folder: %w", err)
	}
	return filepath.Join(base, "egate-vm"), nil
}

// cached returns the build of a kernel line that was fetched last. The error
// wraps os.ErrNotExist if there is none.
func cached(k kernel) (image, error) {
	cache, err := cacheDir()
	if err != nil {
		return image{}, err
	}
	current, err := os.ReadFile(filepath.Join(cache, k.name+".current"))
	if err != nil {
		return image{}, fmt.Errorf("find cached kernel: %w", err)
	}
	release, version, ok := strings.Cut(strings.TrimSpace(string(current)), " ")
	if !ok {
		return image{}, fmt.Errorf("read %s.current: no version in it: %w", k.name, os.ErrNotExist)
	}
	i := image{dir: buildDir(cache, release, version), release: release, version: version}
	for _, file := range []string{i.vmlinux(), i.modules()} {
		if _, err := os.Stat(file); err != nil {
			return image{}, fmt.Errorf("find cached kernel: %w", err)
		}
	}
	return i, nil
}

func buildDir(cache, release, version string) string {
	return filepath.Join(cache, release+"_"+version)
}

// metaDependency finds in a package's description (the text of `apt-cache
// show`) the one kernel image package that a meta package stands for, and its
// exact version.
func metaDependency(description string) (pkg, version string, err error) {
	for line := range strings.Lines(description) {
		depends, ok := strings.CutPrefix(line, "Depends:")
		if !ok {
			continue
		}
		for dep := range strings.SplitSeq(depends, ",") {
			name, constraint, _ := strings.Cut(strings.TrimSpace(dep), " ")
			exact, ok := strings.CutPrefix(constraint, "(= ")
			if ok && strings.HasPrefix(name, "linux-image-") {
				return name, strings.TrimSuffix(exact, ")"), nil
			}
		}
	}
	return "", "", fmt.Errorf("find kernel package: no exact dependency on a linux-image package")
}

// payload finds the compressed kernel inside a bzImage, by the boot protocol's
// header (Documentation/arch/x86/boot.rst), and names the tool that unpacks it.
func payload(bzImage []byte) (compressed []byte, tool string, err error) {
	const (
		setupSects    = 0x1f1 // u8: length of the setup code in sectors, less one
		magic         = 0x202 // "HdrS"
		payloadOffset = 0x248 // u32: from the end of the setup code
		payloadLength = 0x24c // u32: with four bytes of unpacked size at the end
		sector        = 512
	)
	if len(bzImage) < payloadLength+4 || string(bzImage[magic:magic+4]) != "HdrS" {
		return nil, "", fmt.Errorf("read kernel image: no boot protocol header")
	}
	begin := (uint64(bzImage[setupSects])+1)*sector + uint64(binary.LittleEndian.Uint32(bzImage[payloadOffset:]))
	length := uint64(binary.LittleEndian.Uint32(bzImage[payloadLength:]))
	if length < 8 || begin+length > uint64(len(bzImage)) {
		return nil, "", fmt.Errorf("read kernel image: payload of %d bytes at %d lies outside its %d bytes",
			length, begin, len(bzImage))
	}
	compressed = bzImage[begin : begin+length-4]
	for _, format := range []struct{ magic, tool string }{
		{"\x02\x21\x4c\x18", "lz4"}, // the legacy frame
		{"\x28\xb5\x2f\xfd", "zstd"},
		{"\xfd7zXZ\x00", "xz"},
		{"\x1f\x8b", "gzip"},
	} {
		if bytes.HasPrefix(compressed, []byte(format.magic)) {
			return compressed, format.tool, nil
		}
	}
	return nil, "", fmt.Errorf("read kernel image: payload begins with % x: unknown compression", compressed[:4])
}

// wanted are the modules that tests use, as prefixes of their paths below the
// release's folder. What these depend on comes along.
var wanted = []string{
	"kernel/net/8021q/", "kernel/net/bridge/", "kernel/net/core/", "kernel/net/ipv4/", "kernel/net/ipv6/",
	"kernel/net/netfilter/", "kernel/net/netlink/", "kernel/net/packet/", "kernel/net/sched/",
	"kernel/net/sctp/", "kernel/net/xfrm/",
	"kernel/drivers/net/bareudp.", "kernel/drivers/net/dummy.", "kernel/drivers/net/geneve.",
	"kernel/drivers/net/ifb.", "kernel/drivers/net/ipvlan/", "kernel/drivers/net/macvlan.",
	"kernel/drivers/net/netkit.", "kernel/drivers/net/nlmon.", "kernel/drivers/net/tap.",
	"kernel/drivers/net/tun.", "kernel/drivers/net/veth.", "kernel/drivers/net/vrf.",
	"kernel/drivers/net/vxlan", "kernel/drivers/net/wireguard/", "kernel/drivers/net/bonding/",
	"kernel/drivers/char/virtio_console.", "kernel/drivers/virtio/",
	// Asked for by name at run time, so no dependency tells of them.
	"kernel/crypto/crc32c", "kernel/crypto/hmac.", "kernel/crypto/sha1", "kernel/crypto/sha256", "kernel/crypto/md5.",
}

// pickModules chooses from the text of a modules.dep file the wanted modules
// and all they need, sorted.
func pickModules(modulesDep string) []string {
	picked := map[string]bool{}
	for line := range strings.Lines(modulesDep) {
		module, needs, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok || !slices.ContainsFunc(wanted, func(w string) bool { return strings.HasPrefix(module, w) }) {
			continue
		}
		picked[module] = true
		// depmod writes the whole chain of dependencies into each line.
		for _, need := range strings.Fields(needs) {
			picked[need] = true
		}
	}
	var modules []string
	for m := range picked {
		modules = append(modules, m)
	}
	slices.Sort(modules)
	return modules
}
