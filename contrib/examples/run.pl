# usage: perl run.pl SANDBOX
use strict;
use warnings;

my $sandbox = shift;
open my $job, '>', "$sandbox/workspace/job.sh" or die "job.sh: $!\n";
print $job qq(echo "working in \$(pwd)"\nexit 3\n);
close $job or die "job.sh: $!\n";

open my $exec, '+<', "$sandbox/ctl/exec" or die "exec: $!\n";
sysread $exec, my $run, 100 or die "exec: $!\n";
chomp $run;
syswrite $exec, "sh job.sh\n" or die "exec: $!\n";
$| = 1;
while (sysread $exec, my $output, 65536) { print $output }    # as it comes
open my $exit, '<', "$sandbox/ctl/runs/$run/exit" or die "exit: $!\n";
chomp(my $code = <$exit>);
die "the end of the run is $code\n" unless $code =~ /^\d+$/;
exit $code;
