/*
 * What bubblewrap is told: the command line that makes a sandbox, the files of its /etc, and the programs it takes; and the one
 * that keeps the s3fs of a bucket apart.
 * Part of the local driver (local.h); starts nothing.
 *
 * The command line goes through a memory file (--args): with it in argv, ps and /proc would show the paths of the
 * host. What a sandbox sees of the host is listed here and nowhere else: host_binds and etc_binds.
 *
 * Measured with bubblewrap 0.8 on Linux 6.1 to 6.18, and the reason for some words below:
 * - Files of /proc/sys/net belong to the uid that owns the network namespace, which is the sandbox's: uid 0 inside could write
 *   them. Its own --proc does not cover /proc/sys, since uid 0 inside cannot write the directory; a read-only bind does.
 * - /proc/pressure is open to all for writing (a trigger is work for the kernel); the same is done there.
 * - The root and /dev that bubblewrap makes are tmpfs without a size: read-only at the end, else they hold half of the host's memory.
 * - No --die-with-parent: bubblewrap's child has no end of its own before it executes sandboxd. If bubblewrap dies before it has told its child
 *   to go on, the child waits for that for ever. So bubblewrap is left alone, and sandboxd has a lifeline (local.c).
 * - With --as-pid-1 sandboxd is pid 1: no command can stop or kill it by SIGKILL, and
 *   /proc/1 shows nothing of bubblewrap.
 */
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"
#include "local.h"

enum { LIMIT_TMP = 512 << 20, SMALL_SHARE = 4 /* the lesser tmpfs get this part of limit_tmp */ };

static const char *const host_binds[] = {"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"};
/* The last two so that a plot works: matplotlib will not start without its settings, nor find a font without theirs. */
static const char *const etc_binds[] = {"/etc/ssl/certs", "/etc/alternatives", "/etc/ld.so.cache",
	"/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/matplotlibrc", "/etc/fonts"};

/* --- programs --- */

static char *program_at(const char *dir, size_t n, const char *name)
{
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "%.*s/%s", (int)n, dir, name);
	struct stat st;
	if (buf_error(&b) || stat(b.data, &st) < 0 || !S_ISREG(st.st_mode) || access(b.data, X_OK) < 0)
		return NULL;
	return buf_steal(&b);
}

/* New, absolute, or NULL. The sbin directories too: ip lives there and they are not on a user's PATH. */
char *local_program(const char *name)
{
	const char *path = getenv("PATH");
	const char *const lists[] = {path ? path : "", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"};
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		for (const char *at = lists[i]; *at;) {
			size_t n = strcspn(at, ":");
			char *found = *at == '/' ? program_at(at, n, name) : NULL;
			if (found)
				return found;
			at += n + (at[n] == ':');
		}
	}
	return NULL;
}

/* Beside our own program (a build), where make install puts it, then PATH. */
static char *sandboxd_find(void)
{
	static const char *const places[] = {"", "/../lib/sandboxfs"};
	AUTO_FREE char *self = realpath("/proc/self/exe", NULL);
	char *slash = self ? strrchr(self, '/') : NULL;
	for (size_t i = 0; slash && i < sizeof places / sizeof *places; i++) {
		*slash = 0;
		AUTO_BUF dir = BUF_INIT;
		buf_printf(&dir, "%s%s", self, places[i]);
		char *found = buf_error(&dir) ? NULL : program_at(dir.data, dir.size, "sandboxd");
		if (found)
			return found;
	}
	return local_program("sandboxd");
}

int local_programs(struct local *l, struct call *c)
{
	l->bwrap = local_program("bwrap");
	l->slirp = local_program("slirp4netns");
	l->ip = local_program("ip");
	l->sandboxd = sandboxd_find();
	if (!l->bwrap)
		return call_fault(c, ENOENT, NULL,
			"local: bubblewrap is not installed (no bwrap in PATH); apt-get install bubblewrap");
	if (!l->sandboxd)
		return call_fault(c, ENOENT, NULL,
			"local: sandboxd is neither beside sandboxfs nor in ../lib/sandboxfs nor in PATH; "
			"build or install it");
	return 0;
}

void local_programs_free(struct local *l)
{
	free(steal(l->bwrap));
	free(steal(l->slirp));
	free(steal(l->ip));
	free(steal(l->sandboxd));
}

/* --- the command line --- */

static void words(struct buf *b, const char *const *w)
{
	for (; *w; w++)
		buf_add(b, *w, strlen(*w) + 1);
}
#define WORDS(b, ...) words(b, (const char *const[]){__VA_ARGS__, NULL})

static void number(struct buf *b, uint64_t n)
{
	buf_printf(b, "%llu", (unsigned long long)n);
	buf_char(b, 0);
}

static void tmpfs(struct buf *b, const char *perms, uint64_t size, const char *path)
{
	WORDS(b, "--perms", perms, "--size");
	number(b, size < 4096 ? 4096 : size); /* 0 would mean: half of the memory */
	WORDS(b, "--tmpfs", path);
}

/* A directory of the host's top level as it is there: a link stays a link. */
static int host_bind(struct buf *b, const char *path)
{
	struct stat st;
	char target[PATH_MAX];
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISLNK(st.st_mode)) {
		WORDS(b, "--ro-bind", path, path);
		return 0;
	}
	ssize_t n = readlink(path, target, sizeof target - 1);
	if (n < 0)
		return -errno;
	target[n] = 0;
	WORDS(b, "--symlink", target, path);
	return 0;
}

int memory_file(const char *name, const void *p, size_t size, int *fd)
{
	AUTO_FD int f = memfd_create(name, MFD_CLOEXEC);
	if (f < 0)
		return -errno;
	for (size_t done = 0; done < size;) {
		ssize_t n = write(f, (const char *)p + done, size - done);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			done += (size_t)n;
	}
	if (lseek(f, 0, SEEK_SET) < 0)
		return -errno;
	*fd = steal_fd(&f);
	return 0;
}

/* Puts a file with this text at path, readable for all. */
static int etc_file(struct box_plan *p, const char *path, const char *text, size_t size)
{
	if (p->nfiles == BOX_FILES)
		return -E2BIG;
	int err = memory_file("etc", text, size, &p->files[p->nfiles]);
	if (err)
		return err;
	WORDS(&p->args, "--perms", "0644", "--file");
	number(&p->args, BOX_FD_FILES + p->nfiles++);
	WORDS(&p->args, path);
	return 0;
}

static int etc_made(struct box_plan *p)
{
	static const struct {
		const char *path, *text;
	} fixed[] = {
		{"/etc/passwd", "root:x:0:0:root:/root:/bin/bash\n"
						"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"},
		{"/etc/group", "root:x:0:\nnogroup:x:65534:\n"},
		{"/etc/nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n"
							   "networks: files\nprotocols: files\nservices: files\n"},
		{"/etc/host.conf", "multi on\n"},
		{"/etc/shells", "/bin/sh\n/bin/bash\n"},
	};
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		int err = etc_file(p, fixed[i].path, fixed[i].text, strlen(fixed[i].text));
		if (err)
			return err;
	}
	AUTO_BUF name = BUF_INIT;
	AUTO_BUF hosts = BUF_INIT;
	AUTO_BUF resolv = BUF_INIT;
	buf_printf(&name, "%s\n", p->name);
	buf_printf(&hosts,
		"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 %s\n", p->name);
	if (p->net->attach)
		buf_printf(&resolv, "nameserver %s\n", p->net->dns);
	else
		buf_str(&resolv, "# no network\n");
	if (buf_error(&name) || buf_error(&hosts) || buf_error(&resolv))
		return -ENOMEM;
	int err = etc_file(p, "/etc/hostname", name.data, name.size);
	if (!err)
		err = etc_file(p, "/etc/hosts", hosts.data, hosts.size);
	if (!err)
		err = etc_file(p, "/etc/resolv.conf", resolv.data, resolv.size);
	WORDS(&p->args, "--symlink", "../usr/lib/os-release", "/etc/os-release");
	WORDS(&p->args, "--symlink", "/proc/self/mounts", "/etc/mtab");
	return err;
}

/* --- what is bound --- */

const char *local_stage(void)
{
	/* Anything that exists and that everybody may search; bubblewrap takes nothing else from there. */
	static const char *const places[] = {"/mnt", "/media", "/srv", "/opt", "/home"};
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		struct stat st;
		if (lstat(places[i], &st) == 0 && S_ISDIR(st.st_mode))
			return places[i];
	}
	return NULL;
}

/*
 * Binds fd (which path names) at dest. Started by root, the sandbox's uid may reach neither a checkout nor a
 * data directory below /root: then the tree itself is handed over, and appears below the stage.
 */
static int bind_ours(const struct local *l, struct box_plan *p, int fd, const char *path,
	const char *name, const char *how, const char *dest)
{
	if (!l->drop) {
		WORDS(&p->args, how, path, dest);
		return 0;
	}
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	int tree =
		(int)syscall(SYS_open_tree, fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return -errno;
	p->mounts[p->nmounts++] = (struct spawn_mount){tree, name, S_ISDIR(st.st_mode)};
	AUTO_BUF staged = BUF_INIT;
	buf_printf(&staged, "%s/%s", local_stage(), name);
	if (buf_error(&staged))
		return -ENOMEM;
	WORDS(&p->args, how, staged.data, dest);
	return 0;
}

static int bind_parts(const struct local *l, struct box_plan *p)
{
	AUTO_FD int program = open(l->sandboxd, O_PATH | O_CLOEXEC);
	if (program < 0)
		return -errno;
	AUTO_BUF workspace = BUF_INIT;
	AUTO_BUF spool = BUF_INIT;
	buf_printf(&workspace, "%s/%s/workspace", l->names.path, p->name);
	buf_printf(&spool, "%s/%s/spool", l->names.path, p->name);
	if (buf_error(&workspace) || buf_error(&spool))
		return -ENOMEM;
	int err = bind_ours(l, p, program, l->sandboxd, "sandboxd", "--ro-bind", "/.sandboxd/sandboxd");
	if (!err)
		err = bind_ours(l, p, p->spool, spool.data, "spool", "--bind", "/.sandboxd/spool");
	if (!err)
		err = bind_ours(l, p, p->workspace, workspace.data, "workspace", "--bind", "/workspace");
	return err;
}

static int box_words(const struct local *l, struct box_plan *p)
{
	struct buf *b = &p->args;
	uint64_t tmp = l->options->limit_tmp ? l->options->limit_tmp : LIMIT_TMP;
	WORDS(b, "--unshare-user", "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts",
		"--unshare-cgroup-try", "--uid", "0", "--gid", "0", "--disable-userns", "--new-session",
		"--as-pid-1", "--clearenv", "--hostname", p->name, "--info-fd");
	number(b, BOX_FD_INFO);
	WORDS(b, "--block-fd");
	number(b, BOX_FD_BLOCK);
	WORDS(b, "--ro-bind", "/usr", "/usr");
	for (size_t i = 0; i < sizeof host_binds / sizeof *host_binds; i++) {
		int err = host_bind(b, host_binds[i]);
		if (err)
			return err;
	}
	WORDS(b, "--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--ro-bind-try",
		"/proc/pressure", "/proc/pressure", "--dev", "/dev");
	tmpfs(b, "1777", tmp / SMALL_SHARE, "/dev/shm");
	WORDS(b, "--remount-ro", "/dev");
	tmpfs(b, "1777", tmp, "/tmp");
	tmpfs(b, "0700", tmp / SMALL_SHARE, "/root");
	tmpfs(b, "0755", tmp / SMALL_SHARE, "/home");
	tmpfs(b, "0755", tmp / SMALL_SHARE, "/run");
	tmpfs(b, "1777", tmp / SMALL_SHARE, "/var/tmp");
	/* Made by the way they would be 0700, which programs that change their uid do not get past. */
	WORDS(b, "--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl");
	for (size_t i = 0; i < sizeof etc_binds / sizeof *etc_binds; i++)
		WORDS(b, "--ro-bind-try", etc_binds[i], etc_binds[i]);
	int err = etc_made(p);
	if (!err)
		err = bind_parts(l, p);
	WORDS(b, "--remount-ro", "/", "--chdir", "/workspace");
	return err ? err : buf_error(b);
}

/* --- s3fs --- */

/* What it needs of /etc: names, certificates, types of files. */
static const char *const bucket_binds[] = {"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf",
	"/etc/host.conf", "/etc/gai.conf", "/etc/mime.types"};

static void bucket_key(struct buf *b, const struct bucket *bucket)
{
	if (bucket->key_id && bucket->secret)
		WORDS(b, "--setenv", "AWSACCESSKEYID", bucket->key_id, "--setenv", "AWSSECRETACCESSKEY",
			bucket->secret);
	if (bucket->token)
		WORDS(b, "--setenv", "AWSSESSIONTOKEN", bucket->token);
}

/*
 * A mount namespace of s3fs's own in the user namespace that owns the sandbox's mounts (joined, not made), with the host's network. It
 * keeps the one capability that mounting takes. The key is in its environment, and in no command line: --args.
 */
static int bucket_words(const struct local *l, const struct bucket *bucket, struct box_plan *p)
{
	struct buf *b = &p->args;
	WORDS(b, "--userns");
	number(b, BUCKET_FD_USERNS);
	WORDS(b, "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--new-session", "--clearenv",
		"--cap-add", "CAP_SYS_ADMIN", "--info-fd");
	number(b, BUCKET_FD_INFO);
	bucket_key(b, bucket);
	WORDS(b, "--ro-bind", "/usr", "/usr");
	for (size_t i = 0; i < sizeof host_binds / sizeof *host_binds; i++) {
		int err = host_bind(b, host_binds[i]);
		if (err)
			return err;
	}
	WORDS(b, "--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/etc/ssl");
	for (size_t i = 0; i < sizeof etc_binds / sizeof *etc_binds; i++)
		WORDS(b, "--ro-bind-try", etc_binds[i], etc_binds[i]);
	for (size_t i = 0; i < sizeof bucket_binds / sizeof *bucket_binds; i++)
		WORDS(b, "--ro-bind-try", bucket_binds[i], bucket_binds[i]);
	WORDS(b, "--dev", "/dev", "--dev-bind", "/dev/fuse", "/dev/fuse", "--dir", BUCKET_PLACE);
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s/%s/buckets", l->names.path, p->name);
	if (buf_error(&path))
		return -ENOMEM;
	int err = bind_ours(l, p, p->spool, path.data, "buckets", "--bind", "/tmp");
	return err ? err : buf_error(b);
}

int bucket_plan_make(
	const struct local *l, struct call *c, const struct bucket *b, struct box_plan *p)
{
	int err = l->drop && !local_stage() ? -ENOENT : bucket_words(l, b, p);
	return err ? call_fault(c, -err, NULL, "cannot prepare s3fs: %s", strerror(-err)) : 0;
}

int bwrap_child(const char *text, pid_t *pid)
{
	struct json_object *info = json_tokener_parse(text), *value;
	int err = -EPROTO;
	if (json_object_object_get_ex(info, "child-pid", &value) && json_object_get_int(value) > 1) {
		*pid = json_object_get_int(value);
		err = 0;
	}
	json_object_put(info);
	return err;
}

int box_plan_make(const struct local *l, struct call *c, struct box_plan *p)
{
	int err = l->drop && !local_stage() ? -ENOENT : box_words(l, p);
	if (err)
		return call_fault(
			c, -err, NULL, "%s: cannot prepare the sandbox: %s", p->name, strerror(-err));
	return 0;
}

void box_plan_release(struct box_plan *p)
{
	if (p->args.data)
		explicit_bzero(p->args.data, p->args.size); /* of a bucket: its key */
	buf_release(&p->args);
	while (p->nfiles)
		close(p->files[--p->nfiles]);
	while (p->nmounts)
		close(p->mounts[--p->nmounts].tree);
}
