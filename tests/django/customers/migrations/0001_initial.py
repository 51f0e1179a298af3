from django.db import migrations, models


class Migration(migrations.Migration):

    initial = True

    dependencies = [
    ]

    operations = [
        migrations.CreateModel(
            name='Customer',
            fields=[
                ('password', models.CharField(max_length=128, verbose_name='password')),
                ('last_login', models.DateTimeField(blank=True, null=True, verbose_name='last login')),
                ('code', models.CharField(db_column='Customer Code', max_length=60, primary_key=True, serialize=False)),
                ('username', models.CharField(db_column='Login Name', max_length=60, unique=True)),
            ],
            options={
                'db_table': 'Sales Customers',
            },
        ),
    ]
