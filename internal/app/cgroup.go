package app

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// memoryOfGroup returns how many bytes of memory the control group of this process may use: the lowest of its own limits and
// those of its parent groups. It reads cgroups version 2 and version 1; a process may be in both. root is the file system.
func memoryOfGroup(root fs.FS) int64 {
	least := int64(math.MaxInt64)
	for _, h := range hierarchies(root) {
		for dir := path.Join(h.mount, h.group); ; dir = path.Dir(dir) {
			for _, name := range h.limits {
				least = min(least, readLimit(root, path.Join(dir, name)))
			}
			if dir == h.mount || dir == "." {
				break
			}
		}
	}
	return least
}

// hierarchy is a tree of control groups with memory limits, and the place of this process in it.
type hierarchy struct {
	mount  string // where the tree is mounted, as an fs.FS path
	group  string // path below mount
	limits []string
}

// hierarchies finds the trees; see cgroups(7) and proc_pid_mountinfo(5).
func hierarchies(root fs.FS) []hierarchy {
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // "" on a system without control groups
	mounts, _ := fs.ReadFile(root, "proc/self/mountinfo")
	var found []hierarchy
	for line := range strings.Lines(string(mounts)) {
		left, right, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(left), strings.Fields(right)
		if len(where) < 5 || len(what) < 3 {
			continue
		}
		h, controller := hierarchy{mount: strings.TrimPrefix(where[4], "/"), limits: []string{"memory.max", "memory.high"}}, ""
		switch {
		case what[0] == "cgroup2":
		case what[0] == "cgroup" && slices.Contains(strings.Split(what[2], ","), "memory"):
			h.limits, controller = []string{"memory.limit_in_bytes"}, "memory"
		default:
			continue
		}
		h.group = below(where[3], groupOf(string(groups), controller))
		found = append(found, h)
	}
	return found
}

// groupOf finds the path of this process's group. The entry of version 2 has no controller.
func groupOf(groups, controller string) string {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2]
		}
	}
	return "/"
}

// below returns a group's path within the mounted part of the tree. A container sees its own group as the whole tree, while the
// path may be that of the host: then the mount is its group.
func below(mounted, group string) string {
	if mounted == "/" {
		return path.Clean("/" + group)
	}
	if rest, ok := strings.CutPrefix(group, mounted); ok && (rest == "" || rest[0] == '/') {
		return path.Clean("/" + rest)
	}
	return "/"
}

// readLimit reads a limit in bytes. "max", or a missing file, means no limit.
func readLimit(root fs.FS, file string) int64 {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return math.MaxInt64
	}
	if n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && n > 0 {
		return n
	}
	return math.MaxInt64
}
