/* usage: run SANDBOX */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first line of a file, or of what comes from a descriptor. */
static char *line_of(int fd, char *text, size_t size)
{
	ssize_t n = read(fd, text, size - 1);

	if (n < 0)
		err(125, "read");
	text[n] = 0;
	text[strcspn(text, "\n")] = 0;
	return text;
}

int main(int argc, char **argv)
{
	static const char job[] = "echo \"working in $(pwd)\"\nexit 3\n", command[] = "sh job.sh\n";
	char run[100], code[100], path[1000], output[65536], *end;
	int fd;
	ssize_t n;

	if (argc != 2 || chdir(argv[1]) < 0)
		err(125, "%s", argc == 2 ? argv[1] : "usage: run SANDBOX");
	fd = open("workspace/job.sh", O_WRONLY | O_CREAT | O_TRUNC, 0666);
	if (fd < 0 || write(fd, job, sizeof job - 1) < 0 || close(fd) < 0)
		err(125, "job.sh");
	fd = open("ctl/exec", O_RDWR);
	if (fd < 0)
		err(125, "ctl/exec");
	line_of(fd, run, sizeof run);
	if (write(fd, command, sizeof command - 1) < 0)
		err(125, "ctl/exec");
	while ((n = read(fd, output, sizeof output)) > 0) /* as it comes; 0 at its end */
		if (write(STDOUT_FILENO, output, (size_t)n) < 0)
			err(125, "output");
	if (n < 0)
		err(125, "ctl/exec");
	snprintf(path, sizeof path, "ctl/runs/%s/exit", run);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		err(125, "%s", path);
	n = strtol(line_of(fd, code, sizeof code), &end, 10);
	if (end == code || *end)
		errx(125, "the end of the run is %s", code);
	return (int)n;
}
