/*
 * sandboxd: the container API server. Owns the command line, the life of the process and the order in which rooms are made and
 * ended: stop listening, end all commands, cut what still streams, free.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "attach.h"
#include "changes.h"
#include "checks.h"
#include "cleanup.h"
#include "commands.h"
#include "fileop_server.h"
#include "http.h"
#include "interpreter.h"
#include "net.h"
#include "session.h"
#include "text.h"
#include "timed.h"
#include "version.h"

enum { PROCESSES_SPARE = 512, EXIT_USAGE = 2, LISTEN_FILES = 65536, DRAIN_MS = 1000 };

struct settings {
	const char *listen;
	const char *workspace;
	const char *spool;
	uint64_t output_max, min_free, processes;
	uint64_t lifeline; /* a descriptor; 0: none */
	uint64_t ready;    /* likewise */
	bool inherit;
};

static void usage(FILE *to)
{
	fputs(
		"usage: sandboxd --listen unix:PATH|ADDRESS:PORT|fd:N [--workspace DIR] [--spool DIR]\n"
		"                [--output-max BYTES] [--min-free BYTES] [--processes N] [--lifeline FD]\n"
		"                [--ready FD] [--inherit-environment] [--version]\n",
		to);
}

static bool get_number(const char *s, uint64_t *out)
{
	char *end;
	errno = 0;
	*out = strtoull(s, &end, 10);
	return *s >= '0' && *s <= '9' && !*end && !errno && *out <= INT64_MAX;
}

/* 0: serve; else the exit status + 1. */
static int get_settings(int argc, char **argv, struct settings *s)
{
	static const struct option options[] = {{"listen", required_argument, NULL, 'l'},
		{"workspace", required_argument, NULL, 'w'}, {"spool", required_argument, NULL, 's'},
		{"output-max", required_argument, NULL, 'o'}, {"min-free", required_argument, NULL, 'm'},
		{"processes", required_argument, NULL, 'p'}, {"lifeline", required_argument, NULL, 'e'},
		{"ready", required_argument, NULL, 'r'}, {"inherit-environment", no_argument, NULL, 'i'},
		{"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};
	*s = (struct settings){.workspace = "/workspace", .spool = "/tmp", .output_max = 256 << 20};
	bool good = true;
	for (int c; good && (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (c) {
		case 'l':
			s->listen = optarg;
			break;
		case 'w':
			s->workspace = optarg;
			break;
		case 's':
			s->spool = optarg;
			break;
		case 'o':
			good = get_number(optarg, &s->output_max) && s->output_max;
			break;
		case 'm':
			good = get_number(optarg, &s->min_free);
			break;
		case 'p':
			good = get_number(optarg, &s->processes) && s->processes <= INT32_MAX;
			break;
		case 'e':
			good = get_number(optarg, &s->lifeline) && s->lifeline > 2 && s->lifeline <= INT32_MAX;
			break;
		case 'r':
			good = get_number(optarg, &s->ready) && s->ready > 2 && s->ready <= INT32_MAX;
			break;
		case 'i':
			s->inherit = true;
			break;
		case 'V':
			puts("sandboxd " SANDBOXFS_VERSION);
			return 1 + EXIT_SUCCESS;
		case 'h':
			usage(stdout);
			return 1 + EXIT_SUCCESS;
		default:
			good = false;
		}
	}
	if (!good || !s->listen || optind < argc) {
		usage(stderr);
		return 1 + EXIT_USAGE;
	}
	return 0;
}

/* Descriptors 0 to 2 must exist: a socket with such a number would be a command's. */
static void fill_standard_descriptors(void)
{
	int fd;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= 2);
	if (fd > 2)
		close(fd);
}

static void set_limits(struct server *server)
{
	struct rlimit limit;
	getrlimit(RLIMIT_NOFILE, &server->own_files);
	limit = server->own_files;
	if (limit.rlim_max > LISTEN_FILES)
		limit.rlim_max = LISTEN_FILES;
	/* The hard limit stays: commands get back what there was. */
	limit = (struct rlimit){.rlim_cur = limit.rlim_max, .rlim_max = server->own_files.rlim_max};
	setrlimit(RLIMIT_NOFILE, &limit);
	if (!server->processes)
		return;
	if (getrlimit(RLIMIT_NPROC, &limit) < 0)
		return;
	rlim_t keep = server->processes + PROCESSES_SPARE;
	if (limit.rlim_max > keep)
		limit.rlim_max = keep;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NPROC, &limit);
}

/*
 * When a folder for output was made, where one was named: it is not of the image that a lost container's successor is started from. 0: that
 * is not known.
 */
static uint64_t mark_of(const char *spool)
{
	struct statx st;
	if (strcmp(spool, "/tmp") == 0 || statx(AT_FDCWD, spool, 0, STATX_BTIME, &st) < 0 ||
		!(st.stx_mask & STATX_BTIME))
		return 0;
	return (uint64_t)st.stx_btime.tv_sec << 30 ^ st.stx_btime.tv_nsec;
}

static int prepare(struct server *server, const struct settings *s, char **workspace, char **spool)
{
	*workspace = realpath(s->workspace, NULL);
	*spool = realpath(s->spool, NULL);
	if (!*workspace || !*spool) {
		fprintf(
			stderr, "sandboxd: %s: %s\n", *workspace ? s->spool : s->workspace, strerror(errno));
		return -1;
	}
	server->workspace = *workspace;
	server->spool_dir = *spool;
	server->shell = access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
	server->inherited = s->inherit ? environ : NULL;
	server->output_max = s->output_max;
	server->min_free = s->min_free;
	server->processes = s->processes;
	server->started_ms = text_now_ms();
	server->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	atomic_init(&server->stage, STAGE_SERVING);
	atomic_init(&server->ends, 0);
	pthread_mutex_init(&server->requests_lock, NULL);
	(void)timed_cond_init(&server->requests_over); /* CLOCK_MONOTONIC is always there */
	set_limits(server);
	/*
	 * Orphans of commands come to us, so that no zombie is left and none escapes the end. Not every kernel that images run on has it
	 * (qemu's has not): init takes them then.
	 */
	if (server->stop_fd < 0 || (prctl(PR_SET_CHILD_SUBREAPER, 1L) < 0 && errno != EINVAL)) {
		perror("sandboxd");
		return -1;
	}
	struct fileop_server_config config = {.workspace = server->workspace,
		.min_free = server->min_free,
		.mark = mark_of(server->spool_dir)};
	int err = fileop_server_new(&config, &server->files);
	if (!err)
		err = checks_new(server, &server->checks);
	if (!err)
		err = changes_new(server->workspace, &server->changes);
	if (!err)
		err = commands_new(server, &server->commands);
	if (!err)
		err = sessions_new(server, &server->sessions);
	if (!err)
		err = interpreter_new(server, &server->interpreter);
	if (err < 0)
		fprintf(stderr, "sandboxd: %s\n", strerror(-err));
	return err;
}

static void finish(struct server *server, struct MHD_Daemon *daemon)
{
	uint64_t one = 1;
	atomic_store(&server->stage, STAGE_STOPPING);
	(void)!write(server->stop_fd, &one, sizeof one); /* a fresh eventfd has room for a 1 */
	MHD_socket listener = MHD_quiesce_daemon(daemon);
	if (listener >= 0)
		close(listener);
	interpreter_stop(server->interpreter);
	sessions_stop(server->sessions);
	commands_stop(server->commands);
	/* Who waits for a command's end is still told. */
	http_drain(server, text_monotonic_ms() + DRAIN_MS);
	atomic_store(&server->stage, STAGE_CLOSING);
	MHD_stop_daemon(daemon);
	interpreter_free(server->interpreter);
	commands_free(server->commands);
	sessions_free(server->sessions);
	checks_free(server->checks);
	changes_free(server->changes);
	fileop_server_free(server->files);
	close(server->stop_fd);
	pthread_cond_destroy(&server->requests_over);
	pthread_mutex_destroy(&server->requests_lock);
}

/*
 * Until a signal asks for the end. Who holds the other end of the lifeline made this sandbox: with it, this ends at once, and as pid 1
 * takes along all that runs here.
 */
static void wait_for_end(int signals, int lifeline)
{
	struct pollfd fds[] = {{signals, POLLIN, 0}, {lifeline ? lifeline : -1, 0, 0}};
	for (;;) {
		if (poll(fds, 2, -1) < 0)
			continue; /* EINTR */
		if (fds[1].revents)
			_exit(EXIT_FAILURE);
		struct signalfd_siginfo from;
		/* As pid 1 of a sandbox it is ended from outside alone, whose pids read as 0 in here: not by a command's kill. */
		if (read(signals, &from, sizeof from) == sizeof from &&
			(getpid() != 1 || from.ssi_pid == 0))
			return;
	}
}

/* Tells who started it that it serves; the end of file alone would tell that it does not. */
static void say_ready(int fd)
{
	if (!fd)
		return;
	(void)!write(fd, "\n", 1); /* who does not listen any more need not know */
	close(fd);
}

int main(int argc, char **argv)
{
	if (attach_is_wanted(argv[0]))
		return attach_main();
	struct settings settings;
	int done = get_settings(argc, argv, &settings);
	if (done)
		return done - 1;
	pid_t parent = getppid();
	/* For the names in archives, which libarchive converts; not there: names of pax headers are taken as UTF-8 bytes. */
	(void)setlocale(LC_CTYPE, "C.UTF-8");
	fill_standard_descriptors();
	/* Nothing inside may take our sockets or memory with ptrace's rights. */
	prctl(PR_SET_DUMPABLE, 0L);
	umask(0);
	sigset_t ends;
	sigemptyset(&ends);
	sigaddset(&ends, SIGTERM);
	sigaddset(&ends, SIGINT);
	/* Before the first thread: they all inherit it, so that only sigwait below sees these. */
	pthread_sigmask(SIG_BLOCK, &ends, NULL);
	AUTO_FD int end_signals = signalfd(-1, &ends, SFD_CLOEXEC | SFD_NONBLOCK);
	if (end_signals < 0 ||
		(settings.lifeline && fcntl((int)settings.lifeline, F_SETFD, FD_CLOEXEC) < 0) ||
		(settings.ready && fcntl((int)settings.ready, F_SETFD, FD_CLOEXEC) < 0)) {
		perror("sandboxd");
		return EXIT_FAILURE;
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	/* As pid 1 of a sandbox it has a lifeline instead. */
	if (strncmp(settings.listen, "fd:", 3) == 0 && getpid() != 1) {
		prctl(PR_SET_PDEATHSIG, (unsigned long)SIGTERM);
		/* The parent may have died before the line above. */
		if (getppid() != parent)
			return EXIT_FAILURE;
	}

	const char *socket_path, *why;
	int listener = -1;
	int err = net_listen(settings.listen, &listener, &socket_path, &why);
	if (err < 0) {
		fprintf(stderr, "sandboxd: %s: %s\n", settings.listen, why ? why : strerror(-err));
		return EXIT_FAILURE;
	}
	struct server server = {0};
	AUTO_FREE char *workspace = NULL;
	AUTO_FREE char *spool = NULL;
	struct MHD_Daemon *daemon = NULL;
	if (prepare(&server, &settings, &workspace, &spool) == 0) {
		daemon = http_start(&server, listener);
		if (!daemon)
			fprintf(stderr, "sandboxd: cannot serve on %s\n", settings.listen);
	}
	int status = EXIT_FAILURE;
	if (daemon) {
		say_ready((int)settings.ready);
		wait_for_end(end_signals, (int)settings.lifeline);
		finish(&server, daemon);
		status = EXIT_SUCCESS;
	}
	if (socket_path)
		unlink(socket_path);
	return status;
}
