package app

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// memoryOfGroup is how much memory the control group of this process may take: the least of its own limits and of those of the
// groups around it. It looks at version 2 and at version 1; a process may be in both. Root is the file system.
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

// hierarchy is a tree of groups with limits of memory, and where this process is in it.
type hierarchy struct {
	mount  string // where the tree is mounted, as an fs.FS names it
	group  string // below it
	limits []string
}

// hierarchies reads cgroups(7), proc_pid_mountinfo(5).
func hierarchies(root fs.FS) []hierarchy {
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // "" is a system without them
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

// groupOf finds the path of the group: that of version 2 has no controller.
func groupOf(groups, controller string) string {
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && slices.Contains(strings.Split(parts[1], ","), controller) {
			return parts[2]
		}
	}
	return "/"
}

// below gives a group's path within what of the tree is mounted. A container sees its own group as the whole tree, and its path
// may be that of the host: then the mount is its group.
func below(mounted, group string) string {
	if mounted == "/" {
		return path.Clean("/" + group)
	}
	if rest, ok := strings.CutPrefix(group, mounted); ok && (rest == "" || rest[0] == '/') {
		return path.Clean("/" + rest)
	}
	return "/"
}

// readLimit reads a number of bytes. What says "max", or is not there, does not limit.
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
