% The service of `unifyweaver demo`. Its hosts are declared from Python, since their ports differ from run to run.

:- use_module(library(deployment_glue)).

:- declare_service(web, [
       port(8080),
       target(python),
       entry_point('service/server.py'),
       transport(ssh),
       health_endpoint('/health'),
       warmup_endpoint('/'),
       drain_signal('USR1'),
       healthy_deadline(10),
       keep_releases(3)
   ]).

:- declare_service_sources(web, ['service/*', \+ 'service/*.pyc']).

:- declare_deploy_method(web, ssh, [agent(false), remote_dir('~/services')]).

:- declare_lifecycle_hook(web, pre_shutdown, drain_connections).
:- declare_lifecycle_hook(web, post_deploy, warm_cache).
