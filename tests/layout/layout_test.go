// Package layout holds the source tree to the conventions that the compiler
// does not know: which stage may import which, and how packages introduce
// themselves.
package layout

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const module = "egate"

// unprivileged are the packages before the line that runs between tables and
// datapath: they need no kernel and no root.
var unprivileged = []string{"verdict", "ipset", "domain", "packet", "policy", "tables", "compile", "oracle"}

// kernelModules are never imported before that line.
var kernelModules = []string{"github.com/cilium/ebpf", "github.com/vishvananda/netlink", "github.com/vishvananda/netns"}

func parse(t *testing.T, file string, mode parser.Mode) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// goFiles lists a folder's Go files, tests left out.
func goFiles(t *testing.T, folder string) (files []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		if !strings.HasSuffix(f, "_test.go") {
			files = append(files, f)
		}
	}
	return files
}

// The packages without privilege import only each other among the project's,
// and nothing that speaks to the kernel, however deep: what each of them
// imports of the project is checked in its turn.
func TestStagesBeforeTheKernelStayUnprivileged(t *testing.T) {
	allowed := map[string]bool{}
	for _, name := range unprivileged {
		allowed[module+"/internal/"+name] = true
	}
	for _, name := range unprivileged {
		files := goFiles(t, filepath.Join("../../internal", name))
		if len(files) == 0 {
			t.Errorf("package %s has no files", name)
		}
		for _, file := range files {
			for _, path := range imports(t, file) {
				if strings.HasPrefix(path, module+"/") && !allowed[path] {
					t.Errorf("%s imports %s, a later stage", file, path)
				}
				for _, kernel := range kernelModules {
					if path == kernel || strings.HasPrefix(path, kernel+"/") {
						t.Errorf("%s imports %s", file, path)
					}
				}
			}
		}
	}
}

// Data flows one way: a package imports only what stands before it.
func TestImportsPointUpstream(t *testing.T) {
	order := map[string]int{}
	for i, name := range unprivileged {
		order[module+"/internal/"+name] = i
	}
	// oracle judges by the model and answers in the words of tables, never
	// through compile.
	order[module+"/internal/oracle"] = order[module+"/internal/compile"]
	for _, name := range unprivileged {
		for _, file := range goFiles(t, filepath.Join("../../internal", name)) {
			for _, path := range imports(t, file) {
				if at, known := order[path]; known && at >= order[module+"/internal/"+name] {
					t.Errorf("%s imports %s, which does not stand before it", file, path)
				}
			}
		}
	}
}

// Nothing that ships imports the oracle.
func TestOnlyTestsUseTheOracle(t *testing.T) {
	for _, root := range []string{"../../internal", "../../cmd"} {
		for _, folder := range folders(t, root) {
			for _, file := range goFiles(t, folder) {
				for _, path := range imports(t, file) {
					if path == module+"/internal/oracle" {
						t.Errorf("%s imports %s, which is for tests", file, path)
					}
				}
			}
		}
	}
}

func TestPackagesIntroduceThemselves(t *testing.T) {
	for _, folder := range folders(t, "../../internal") {
		files := goFiles(t, folder)
		if len(files) == 0 {
			continue
		}
		comments, name := 0, ""
		for _, file := range files {
			f := parse(t, file, parser.PackageClauseOnly|parser.ParseComments)
			name = f.Name.Name
			if f.Doc == nil {
				continue
			}
			comments++
			want := "Package " + name + " "
			if name == "main" {
				want = "Command "
			}
			if !strings.HasPrefix(f.Doc.Text(), want) {
				t.Errorf("%s: the comment above the package clause does not begin with %q", file, want)
			}
		}
		if comments != 1 {
			t.Errorf("%s: %d package comments in package %s, want one", folder, comments, name)
		}
	}
}

func imports(t *testing.T, file string) (paths []string) {
	t.Helper()
	for _, spec := range parse(t, file, parser.ImportsOnly).Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// folders lists root and all folders below it, testdata left out.
func folders(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
