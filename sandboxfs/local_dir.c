/*
 * Local sandboxes on disk: the data directory, NAME/{workspace,spool,buckets,lock}, their locks and removal.
 * Offers what local.h lists. Knows nothing of bubblewrap.
 *
 * Everything is opened relative to a descriptor and never through a link. NAME/ is 0700 and ours: a sandbox sees only what is inside
 * workspace/ and spool/, so that nothing between check and use can be swapped by it. What is inside
 * these two belongs to it: no code of ours walks there but the removal (tree_remove.h), in a child under the sandbox's uid.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "local.h"
#include "log.h"
#include "tree_remove.h"

enum { NAME_LENGTH = 63, REMOVE_TRIES = 100 };

static bool local_name_valid(const char *name)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n = strlen(name);
	return n >= 1 && n <= NAME_LENGTH && strchr(plain, name[0]) && strspn(name, more) == n;
}

/* --- the data directory --- */

/* Where it is by default, or what follows "local:"; new. */
static char *data_place(const struct options *o)
{
	const char *given = o->server && !strncmp(o->server, "local:", 6) ? o->server + 6 : "";
	AUTO_BUF b = BUF_INIT;
	if (!*given)
		return names_data_home("");
	if (*given == '/') {
		buf_str(&b, given);
	} else {
		AUTO_FREE char *cwd = getcwd(NULL, 0);
		buf_printf(&b, "%s/%s", cwd ? cwd : "", given);
	}
	return buf_steal(&b);
}

static void remove_leftovers(const struct local *l);

int local_dir_open(struct local *l, struct call *c)
{
	l->names = (struct names){.dir = -1,
		.path = data_place(l->options),
		.server = "local",
		.another = "; give another place: local:DIR",
		.mountpoint = l->options->mountpoint,
		.valid = local_name_valid,
		.grammar =
			"a local sandbox is named by letters, digits, `.`, `_`, `-`, at most 63, and begins "
			"with a letter or digit"};
	if (!l->names.path)
		return -ENOMEM;
	int err = names_open(&l->names, c);
	if (!err)
		remove_leftovers(l);
	return err;
}

/* --- what belongs to the sandbox --- */

int local_dir_part(const struct local *l, struct call *c, const char *name, int dir,
	const char *part, bool make, int *fd)
{
	if (make && mkdirat(dir, part, 0755) < 0 && errno != EEXIST)
		return call_fault(
			c, errno, NULL, "%s: %s/%s/%s: %s", name, l->names.path, name, part, strerror(errno));
	AUTO_FD int found = openat(dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (found < 0)
		return call_fault(c, errno, NULL,
			"%s: %s/%s/%s is not a directory (%s; links are not followed); move it away", name,
			l->names.path, name, part, strerror(errno));
	struct stat st;
	if (fstat(found, &st) < 0)
		return -errno;
	/* Just made, or made by a program that died before the next line. */
	if (make && l->drop && st.st_uid == geteuid()) {
		if (fchownat(found, "", l->uid, l->gid, AT_EMPTY_PATH) < 0 || fstat(found, &st) < 0)
			return call_fault(c, errno, NULL, "%s: %s/%s/%s: %s", name, l->names.path, name, part,
				strerror(errno));
	}
	if (st.st_uid != l->uid)
		return call_fault(c, EPERM, NULL,
			"%s: %s/%s/%s belongs to uid %u, but sandboxes of this user run as uid %u; chown -hR "
			"it",
			name, l->names.path, name, part, (unsigned)st.st_uid, (unsigned)l->uid);
	*fd = steal_fd(&found);
	return 0;
}

/* In a child: empties its working directory. The exit status is 0 or an errno. */
static int empty_body(void *arg)
{
	(void)arg;
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? errno : -tree_empty(fd);
}

/* Empties dir under the sandbox's uid. */
static int empty_there(const struct local *l, int dir)
{
	struct spawn what = {.body = empty_body,
		.cwd = dir,
		.userns = -1,
		.netns = -1,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid};
	struct child *child;
	int status, err = spawner_start(l->spawner, &what, &child, NULL);
	if (err)
		return err;
	err = child_wait(child, -1, &status);
	child_put(child);
	return err ? err : WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

/* Empties and removes what a sandbox could write to. */
static int remove_part(const struct local *l, int dir, const char *part)
{
	struct stat st;
	if (fstatat(dir, part, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISDIR(st.st_mode))
		return unlinkat(dir, part, 0) < 0 ? -errno : 0;
	/* Its own mode may shut out its owner; the link cannot be swapped, dir is ours alone. */
	if (fchmodat(dir, part, 0700, 0) < 0)
		return -errno;
	AUTO_FD int fd = openat(dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int err = empty_there(l, fd);
	if (err) {
		log_error("%s: cannot be emptied: %s", part, strerror(-err));
		return err;
	}
	return unlinkat(dir, part, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int local_dir_clear(
	const struct local *l, struct call *c, const char *name, int dir, const char *part)
{
	/* Usually empty: no need for a child. */
	if (unlinkat(dir, part, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	int err = remove_part(l, dir, part);
	if (err)
		return call_fault(c, -err, NULL, "%s: %s/%s/%s cannot be emptied: %s", name, l->names.path,
			name, part, strerror(-err));
	return 0;
}

/* Removes a directory of the data directory that carries no sandbox's name any more. */
static int remove_gone(const struct local *l, const char *gone)
{
	AUTO_FD int dir = openat(l->names.dir, gone, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	int err = remove_part(l, dir, "workspace");
	if (!err)
		err = remove_part(l, dir, "spool");
	if (!err)
		err = remove_part(l, dir, "buckets");
	/* Another mount that found the directory under its name may just be making a lock in it. */
	for (int tries = 0; !err && tries < REMOVE_TRIES; tries++) {
		if (unlinkat(dir, "lock", 0) < 0 && errno != ENOENT)
			return -errno;
		if (unlinkat(l->names.dir, gone, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != ENOTEMPTY)
			return -errno;
	}
	return err ? err : -ENOTEMPTY;
}

/* What a program that died in local_dir_destroy left. */
static void remove_leftovers(const struct local *l)
{
	DIR *d = names_list(&l->names);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		if (strncmp(e->d_name, ".gone-", 6))
			continue;
		AUTO_FD int dir =
			openat(l->names.dir, e->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		AUTO_FD int lock = dir < 0 ? -1 : openat(dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
		if (dir < 0 || (lock >= 0 && names_lock_now(lock) < 0))
			continue; /* somebody is at it */
		int err = remove_gone(l, e->d_name);
		if (err)
			log_info("%s/%s: cannot be removed: %s", l->names.path, e->d_name, strerror(-err));
	}
	closedir(d);
}

int local_dir_destroy(struct local *l, struct call *c, const char *name)
{
	AUTO_FD int dir = -1;
	AUTO_FD int lock = -1;
	int err = names_find(&l->names, c, name, &dir);
	if (!err)
		err = names_lock(&l->names, c, name, dir, &lock);
	if (err)
		return err;
	/* First the name, at once: whoever makes it anew never meets the old files. */
	uint64_t salt;
	char gone[32];
	if (getrandom(&salt, sizeof salt, 0) != (ssize_t)sizeof salt)
		return -EIO;
	snprintf(gone, sizeof gone, ".gone-%016llx", (unsigned long long)salt);
	if (renameat(l->names.dir, name, l->names.dir, gone) < 0)
		return call_fault(
			c, errno, NULL, "%s: %s/%s: %s", name, l->names.path, name, strerror(errno));
	err = remove_gone(l, gone);
	if (err)
		return call_fault(c, -err, NULL, "%s: destroyed, but %s/%s could not be removed whole: %s",
			name, l->names.path, gone, strerror(-err));
	return 0;
}
